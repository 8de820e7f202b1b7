"""Maximum and mean over positions, fed in chunks."""

import torch
from jaxtyping import Float, Int


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
        self, values: Float[torch.Tensor, "positions f"], lengths: Int[torch.Tensor, " rows"]
    ) -> None:
        """Add the first ``lengths[0]`` positions to row 0, the next ``lengths[1]`` to row 1, …"""
        self.count = self.count + lengths
        if "max" in self.poolings:
            top = _reduce(values, lengths, "max", -torch.inf)
            self._max = top if self._max is None else torch.maximum(self._max, top)
        if "mean" in self.poolings:
            total = _reduce(values.float(), lengths, "sum", 0.0)
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


def _reduce(
    values: Float[torch.Tensor, "positions f"],
    lengths: Int[torch.Tensor, " rows"],
    how: str,
    empty: float,
) -> Float[torch.Tensor, "rows f"]:
    return torch.segment_reduce(values, how, lengths=lengths, axis=0, unsafe=True, initial=empty)
