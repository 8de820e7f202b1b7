"""What the working set says about each input: the solution and its certificate."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import sparse

from steering_core.optimize.dictionary import Dictionary
from steering_core.optimize.solution import STATUSES

_EXACT = 1e-9  # an error (relative) below this is none


@dataclass(frozen=True)
class Outcome:
    """One input's solution; NaN where there is none.

    ``miss`` is by how much the worst constraint is missed, relative to the largest shortfall
    (margins, each in units of its best feature's gain) or ε (budget).
    """

    status: str
    delta: sparse.csr_array
    objective: float = np.nan
    dual_objective: float = np.nan
    violation: float = np.nan
    norm: float = np.nan
    miss: float = 0.0
    iterations: int = 0
    rounds: int = 0
    inner: str = ""

    @classmethod
    def nothing(cls, status: str, d_sae: int) -> "Outcome":
        """No solution."""
        return cls(status, sparse.csr_array((1, d_sae)))

    @classmethod
    def satisfied(cls, d_sae: int) -> "Outcome":
        """δ = 0 is exact."""
        return cls("already_satisfied", sparse.csr_array((1, d_sae)), 0.0, 0.0, 0.0, 0.0)

    def by(self, inner: str) -> "Outcome":
        """The same with the inner solver whose point was used."""
        return replace(self, inner=inner)

    def counted(self, iterations: int, rounds: int) -> "Outcome":
        """The same with the work that the input took."""
        return replace(self, iterations=iterations, rounds=rounds)

    @property
    def error(self) -> float:
        """The relative gap, without its sign, or the miss if that is larger."""
        gap = abs(self.objective - self.dual_objective)
        error = max(gap / self.objective if self.objective > 0 else gap, self.miss)
        return np.inf if np.isnan(error) else error

    def better(self, earlier: "Outcome | None") -> "Outcome":
        """This one, unless it is in error and an ``earlier`` one is less so."""
        if earlier is None or self.error <= max(earlier.error, _EXACT):
            return self
        return earlier

    def judged(self, tolerance: float) -> "Outcome":
        """The same, ``inaccurate`` if its error exceeds ``tolerance``."""
        if self.status != "optimal" or self.error <= tolerance:
            return self
        return replace(self, status="inaccurate")


class WorkingSetSolutions:
    """Solutions of n inputs, in the terms of :class:`Solutions` of the path.

    Values of infeasible and failed inputs are NaN, their ``l0`` is -1, their rows of ``delta``
    empty.

    Attributes:
        shortfall: r, ``(n, k)``.
        parameter: λ or ε, ``(n,)``.
        delta: δ, ``(n, d_sae)`` CSR; negative entries are features turned down.
        iterations: of the inner solver, all rounds together.
        rounds: how often the full dictionary was priced.
        inner: the inner solver whose point was used, e.g. ``"clarabel"`` where OSQP did not
            converge; empty where none was needed.
    """

    def __init__(
        self,
        dictionary: Dictionary,
        shortfall: Float[np.ndarray, "n k"],
        parameter: Float[np.ndarray, " n"],
        outcomes: list[Outcome],
    ) -> None:
        self._dictionary = dictionary
        self.shortfall, self.parameter = shortfall, parameter
        empty = sparse.csr_array((0, dictionary.d_sae))
        self.delta = (
            sparse.csr_array(sparse.vstack([o.delta for o in outcomes])) if outcomes else empty
        )
        self.status = np.array([o.status for o in outcomes], dtype=f"<U{max(map(len, STATUSES))}")
        for name, source in (
            ("objective", "objective"),
            ("dual_objective", "dual_objective"),
            ("dual_violation", "violation"),
            ("residual_norm", "norm"),
        ):
            setattr(self, name, np.array([getattr(o, source) for o in outcomes], dtype=float))
        self.iterations = np.array([o.iterations for o in outcomes], dtype=np.int64)
        self.rounds = np.array([o.rounds for o in outcomes], dtype=np.int64)
        self.inner = np.array([o.inner for o in outcomes], dtype="<U8")

    def __len__(self) -> int:
        return self.status.size

    @property
    def solved(self) -> Bool[np.ndarray, " n"]:
        """Mask of the inputs that have a solution (a zero one included)."""
        return ~np.isnan(self.objective)

    @property
    def relative_gap(self) -> Float[np.ndarray, " n"]:
        """``(objective − dual_objective) / objective``, 0 for δ = 0."""
        scale = np.where(self.objective == 0, 1.0, self.objective)
        return (self.objective - self.dual_objective) / scale

    @property
    def l1(self) -> Float[np.ndarray, " n"]:
        """``‖δ‖₁``."""
        return np.where(self.solved, abs(self.delta).sum(axis=1), np.nan)

    @property
    def l0(self) -> Int[np.ndarray, " n"]:
        """Number of coefficients that are not zero, -1 without a solution."""
        return np.where(self.solved, np.diff(self.delta.indptr), -1)

    @cached_property
    def vector(self) -> Float[np.ndarray, "n d_model"]:
        """``Dᵀδ``, float64; rows without a solution are NaN."""
        used = np.unique(self.delta.indices)
        out = self.delta[:, used] @ self._dictionary.rows(used)
        out[~self.solved] = np.nan
        return out
