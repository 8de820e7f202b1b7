"""Maximum and mean over positions, fed in chunks."""

import torch
from jaxtyping import Bool, Float, Int


class Pool:
    """Running maximum and sum of each row's positions; only what is asked for.

    Args:
        rows: number of samples.
        poolings: which of ``max`` and ``mean`` are wanted.
    """

    def __init__(self, rows: int, poolings: set[str]):
        self.rows = rows
        self.poolings = poolings
        self.count: Int[torch.Tensor, " rows"] | int = 0
        self._max: torch.Tensor | None = None
        self._sum: torch.Tensor | None = None

    def add(
        self,
        values: Float[torch.Tensor, "steps rows f"],
        alive: Bool[torch.Tensor, "steps rows"],
    ) -> None:
        """Add positions; those not ``alive`` do not count."""
        self.count = self.count + alive.sum(dim=0)
        whole = bool(alive.all())  # then no copy of the values is needed
        if "max" in self.poolings:
            real = values if whole else values.masked_fill(~alive[..., None], -torch.inf)
            top = real.amax(dim=0)
            self._max = top if self._max is None else torch.maximum(self._max, top)
        if "mean" in self.poolings:
            real = values if whole else values.masked_fill(~alive[..., None], 0.0)
            total = real.sum(dim=0, dtype=torch.float32)
            self._sum = total if self._sum is None else self._sum + total

    def top(self) -> Float[torch.Tensor, "rows f"]:
        """Return the maximum; minus infinity for a row without positions."""
        if self._max is None:
            raise ValueError("no maximum was kept.")
        return self._max

    def total(self) -> Float[torch.Tensor, "rows f"]:
        """Return the sum; 0 for a row without positions."""
        if self._sum is None:
            raise ValueError("no sum was kept.")
        return self._sum

    def result(self, pooling: str) -> Float[torch.Tensor, "rows f"]:
        """Return the pooled values.

        Raises:
            ValueError: if a row has no position, or this pooling was not asked for.
        """
        if isinstance(self.count, int) or not bool((self.count > 0).all()):
            raise ValueError("a sample has no position to pool over.")
        return self.top() if pooling == "max" else self.total() / self.count[:, None]
