"""Guards: directions along which an intervention may move the residual only so far.

``|g_j·Dᵀδ| ≤ κ_j`` is two margins, ``g_j·Dᵀδ ≥ −κ_j`` and ``−g_j·Dᵀδ ≥ −κ_j``. So the working set
solves a guarded program as one with 2m more margins, with the same certificate. δ = 0 always holds
them, so an input that passes its own margins still gets δ = 0.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from steering_core.optimize.checks import as_float64, as_numbers, match


@dataclass(frozen=True, eq=False)
class Guards:
    """Directions and how far an intervention may move the residual along each.

    Attributes:
        directions: G, ``(m, d_model)``.
        kappa: κ >= 0, in the unit of ``g_j·v``; ``inf`` guards nothing, ``(m,)``.
        names: of the guards, for messages.
    """

    directions: Float[np.ndarray, "m d_model"]
    kappa: Float[np.ndarray, " m"]
    names: tuple[str, ...]

    @classmethod
    def of(cls, directions: Any, kappa: Any, names: Sequence[str] = ()) -> "Guards":
        """Check and return guards.

        Args:
            directions: ``(m, d_model)`` or ``(d_model,)``.
            kappa: a number, or one for each guard.
            names: of the guards; numbers by default.

        Raises:
            ValueError: naming ``guards``, ``kappa`` or ``names``.
        """
        matrix = as_numbers("guards", directions)
        matrix = np.atleast_2d(as_float64("guards", matrix, min(max(matrix.ndim, 1), 2)))
        bound = as_numbers("kappa", kappa)
        if bound.ndim > 1 or not (bound >= 0).all():
            raise ValueError("kappa must be >= 0 and not NaN: a number, or one for each guard.")
        bound = match("kappa", np.atleast_1d(bound), len(matrix))
        names = tuple(names) or tuple(f"guard {j}" for j in range(len(matrix)))
        if len(names) != len(matrix):
            raise ValueError(f"names: there are {len(names)} for {len(matrix)} guards.")
        if len(set(names)) < len(names):
            raise ValueError("names: two guards have the same.")
        return cls(matrix, bound, names)

    def __len__(self) -> int:
        return len(self.kappa)

    def only(self, chosen: Int[np.ndarray, " j"]) -> "Guards":
        """Return some of the guards."""
        names = tuple(self.names[j] for j in chosen)
        return Guards(self.directions[chosen], self.kappa[chosen], names)

    def mapped(
        self, change: Callable[[Float[np.ndarray, " d_model"]], Float[np.ndarray, " d_model"]]
    ) -> "Guards":
        """Return the guards with each direction changed, as for a program in another metric."""
        return Guards(np.stack([change(one) for one in self.directions]), self.kappa, self.names)

    @property
    def finite(self) -> "Guards":
        """The guards that can be reached at all."""
        return self.only(np.flatnonzero(np.isfinite(self.kappa)))

    @property
    def rows(self) -> Float[np.ndarray, "2m d_model"]:
        """The directions of the margins that stand for the guards: G, then −G."""
        return np.concatenate([self.directions, -self.directions])

    @property
    def bounds(self) -> Float[np.ndarray, " 2m"]:
        """The right-hand sides of these margins."""
        return -np.concatenate([self.kappa, self.kappa])

    def shifts(self, vectors: Float[np.ndarray, "n d_model"]) -> Float[np.ndarray, "n m"]:
        """Return ``g_j·v`` of each vector."""
        return vectors @ self.directions.T

    def over(self, vectors: Float[np.ndarray, "n d_model"]) -> Float[np.ndarray, "n m"]:
        """Return by how much each vector exceeds each guard; negative inside."""
        return np.abs(self.shifts(vectors)) - self.kappa


def irreducible(guards: Guards, feasible: Callable[[Guards], bool]) -> tuple[str, ...]:
    """Return the names of guards that cannot be held together, none of which can be left out.

    A deletion filter (Chinneck 2008): each guard in turn is left out, and for good if the rest is
    still infeasible.

    Args:
        guards: with which the program is infeasible.
        feasible: whether the program is feasible with some of the guards.

    Returns:
        No names if the program is infeasible without any guard.
    """
    left = guards
    for name in guards.names:
        rest = left.only(np.array([j for j, own in enumerate(left.names) if own != name], int))
        if not feasible(rest):
            left = rest
    return left.names
