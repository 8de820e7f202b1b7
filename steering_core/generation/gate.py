"""Plans that act only at the positions of a text where a gate is open.

See :class:`steering_core.methods.gates.Gate` for the condition.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from steering_core.methods.gates import Gate
from steering_core.models.site import Site


class Steering(Protocol):
    """What acts at one site on the rows of a batch."""

    def at(
        self, rows: Int[torch.Tensor, " n"], residual: Float[torch.Tensor, "n d_model"]
    ) -> Float[torch.Tensor, "n d_model"]:
        """Return the residuals, each of a row of the batch, with what is added there."""


class Plan(Protocol):
    """What is added at one site to n rows."""

    def rows(self, chosen: Sequence[int]) -> "Plan":
        """Return the plan of the rows ``chosen``."""

    def start(self) -> Steering:
        """Return what steers the rows of one batch."""


@dataclass(frozen=True, eq=False)
class GatedPlan:
    """A plan of a site that acts where its gate is open.

    Attributes:
        plan: vectors, or a program that is solved at every position.
        gate: for residuals as the site sees them.
        site: where the plan acts; where it is centred, so are the residuals of the gate.
        n: how many rows the plan has.
    """

    plan: Plan
    gate: Gate
    site: Site
    n: int

    def rows(self, chosen: Sequence[int]) -> "GatedPlan":
        """Return the plan of the rows ``chosen``."""
        return GatedPlan(self.plan.rows(chosen), self.gate, self.site, len(chosen))

    def start(self) -> "GatedSteering":
        """Return what steers the rows of one batch."""
        return GatedSteering(self)


class OpenAt:
    """Where a gate is open, for raw residuals on the model's device.

    Args:
        gate: for residuals as the site sees them.
        site: where the residuals are; where it is centred, so are they before the dot product.
    """

    def __init__(self, gate: Gate, site: Site):
        # w·(h − mean h) = (w − mean w)·h.
        weight = site.view(np.asarray(gate.weight, dtype=np.float64))
        self._weight, self._bias = torch.tensor(weight, dtype=torch.float32), gate.bias

    def __call__(self, residual: Float[torch.Tensor, "n d_model"]) -> Bool[torch.Tensor, " n"]:
        """Return at which residuals the gate is open."""
        self._weight = self._weight.to(residual.device)
        # Do not use a matrix product: its last digits depend on the number of rows.
        return (residual.float() * self._weight).sum(dim=-1) + self._bias > 0


class GatedSteering:
    """Lets a plan act on the positions of a batch at which its gate is open.

    Attributes:
        inner: what acts there.
    """

    def __init__(self, plan: GatedPlan):
        self.inner = plan.plan.start()
        self._open, self._n = OpenAt(plan.gate, plan.site), plan.n
        self._opened: list[torch.Tensor] = []

    def at(
        self, rows: Int[torch.Tensor, " n"], residual: Float[torch.Tensor, "n d_model"]
    ) -> Float[torch.Tensor, "n d_model"]:
        """Return the residuals, those behind an open gate with what the plan adds to them."""
        opened = self._open(residual)
        place = opened.nonzero()[:, 0]
        count = torch.zeros(self._n, dtype=torch.long, device=residual.device)
        self._opened.append(count.index_add_(0, rows.to(count.device), opened.long()))
        # Called even without an open position: a program counts its passes.
        moved = self.inner.at(rows.to(place.device)[place], residual[place])
        return residual.index_copy(0, place, moved)

    def opened(self, passes: Int[np.ndarray, " batch"]) -> Int[np.ndarray, " batch"]:
        """Return at how many steerable positions of each row the gate was open.

        Args:
            passes: forward passes that belong to each row.
        """
        return own_counts(self._opened, passes)


def own_counts(
    counts: Sequence[torch.Tensor], passes: Int[np.ndarray, " batch"]
) -> Int[np.ndarray, " batch"]:
    """Return the sum of each row's counts over the forward passes that belong to it.

    After a row has ended, passes that only other rows of the batch need are not counted.

    Args:
        counts: of each pass, ``(batch,)``.
        passes: forward passes that belong to each row.
    """
    table = torch.stack([*counts]).cpu().numpy()
    own = np.arange(len(table))[:, None] < np.asarray(passes)[None]
    return np.where(own, table, 0).sum(axis=0)
