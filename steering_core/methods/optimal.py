"""The two convex programs as steering methods, solved exactly for each input."""

from abc import abstractmethod
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int

from steering_core.methods.base import SteeringMethod
from steering_core.optimize.checks import as_float64, as_number, as_numbers
from steering_core.optimize.dictionary import Dictionary
from steering_core.optimize.path import SteeringPath
from steering_core.optimize.solution import Solutions


class InfeasibleError(ValueError):
    """No intervention satisfies the constraints of the program for this input."""


#: Statuses without a vector: what is raised, and what it says.
_REFUSED = (
    ("infeasible", InfeasibleError, "{name} is infeasible"),
    ("failed", ArithmeticError, "the path cannot be followed so far in float64"),
    ("inaccurate", ArithmeticError, "the certified gap of the solution is {gap:.1e}"),
)
_LISTED = 20  # rows that an error names


class OptimalSteering(SteeringMethod):
    """Common part of the programs: ``min`` sparsity ``s.t.`` the probe's logit reaches ``tau``."""

    def __init__(self, tau: float = 0.5):
        tau = as_number("tau", tau)
        if not np.isfinite(tau):
            raise ValueError(f"tau must be finite, got {tau}")
        self.tau = tau
        self._path: SteeringPath | None = None
        self._dictionary: Dictionary | None = None

    @abstractmethod
    def solve(self, path: SteeringPath, shortfall: Float[np.ndarray, " n"]) -> Solutions:
        """Solve for every shortfall on the path of the oriented probe."""

    def shortfall(
        self,
        h: Float[np.ndarray, "*n d_model"],
        probe_w: Float[np.ndarray, " d_model"],
        probe_b: float,
    ) -> Float[np.ndarray, "*n"]:
        """Return ``tau − (w·h + b)`` for the probe oriented to the target class, in logits."""
        return self.tau - (h @ probe_w + probe_b)

    def compute_steering_vector(
        self,
        h: Float[np.ndarray, " d_model"],
        probe_w: Float[np.ndarray, " d_model"],
        probe_b: float,
        D: Float[np.ndarray, "d_sae d_model"],
        sae_features: Float[np.ndarray, " d_sae"] | None = None,
        target_class: Literal[0, 1] = 1,
    ) -> Float[np.ndarray, " d_model"]:
        """Return ``Dᵀδ`` of the optimum for ``h``.

        Arrays may be of numpy or torch, of any float type. The path of (D, w) is kept between
        calls, so a further input costs a lookup and a comparison of D, which may have been changed
        in place. For many inputs :meth:`compute_steering_vectors` compares it once.

        Raises:
            InfeasibleError: if no δ satisfies the constraints.
            ArithmeticError: if the solution cannot be certified to be the optimum.
            ValueError: naming an argument of the wrong shape, or with NaN.

        """
        h = as_float64("h", h, 1)
        path, probe_b = self._prepared(h.shape, probe_w, probe_b, D, target_class)
        solution = self.solve(path, np.atleast_1d(self.shortfall(h, path.weight, probe_b)))
        self._refuse(solution, "this input", np.arange(1))
        return solution.vector[0]

    def compute_steering_vectors(
        self,
        H: Float[np.ndarray, "n d_model"],
        probe_w: Float[np.ndarray, " d_model"],
        probe_b: float,
        D: Float[np.ndarray, "d_sae d_model"],
        target_class: Literal[0, 1] = 1,
        unsolved: Literal["raise", "nan"] = "raise",
    ) -> Float[np.ndarray, "n d_model"]:
        """Return ``Dᵀδ`` of the optimum for each row of ``H``: one path, one solve.

        Args:
            H: residuals, a row per input.
            probe_w: weight of the probe.
            probe_b: its bias.
            D: decoder, a row per feature.
            target_class: the class to steer to.
            unsolved: what to do about inputs without a certified solution: ``"raise"``, or
                ``"nan"`` to give them a row of NaN.

        Raises:
            InfeasibleError: naming the rows, if no δ satisfies the constraints of some.
            ArithmeticError: naming the rows, if solutions cannot be certified to be optima.
            ValueError: naming an argument of the wrong shape or value, or with NaN.

        """
        if unsolved not in ("raise", "nan"):
            raise ValueError(f"unsolved must be 'raise' or 'nan', got {unsolved!r}")
        H = as_float64("H", H, 2)
        path, probe_b = self._prepared(H.shape[1:], probe_w, probe_b, D, target_class, "a row of H")
        solution = self.solve(path, self.shortfall(H, path.weight, probe_b))
        if unsolved == "raise":
            self._refuse(solution, "rows {}", np.arange(len(H)))
        vectors = solution.vector
        vectors[~np.isin(solution.status, ("optimal", "already_satisfied"))] = np.nan
        return vectors

    def _prepared(
        self,
        shape: tuple[int, ...],
        probe_w: Float[np.ndarray, " d_model"],
        probe_b: float,
        D: Float[np.ndarray, "d_sae d_model"],
        target_class: Literal[0, 1],
        what: str = "h",
    ) -> tuple[SteeringPath, float]:
        """The path of the oriented probe, and its bias; ``shape`` is that of an input."""
        w, probe_b = as_float64("probe_w", probe_w, 1), as_number("probe_b", probe_b)
        if shape != w.shape:
            raise ValueError(f"{what} must have shape {w.shape}, got {shape}")
        if not np.isfinite(probe_b):
            raise ValueError("probe_b must be finite")
        if target_class not in (0, 1):
            raise ValueError(f"target_class must be 0 or 1, got {target_class}")
        if target_class == 0:
            w, probe_b = -w, -probe_b
        if not isinstance(D, (np.ndarray, torch.Tensor)):
            D = as_numbers("D", D)
        if D.ndim != 2 or D.shape[1] != w.size:
            raise ValueError(f"D must have shape (d_sae, {w.size}), got {tuple(D.shape)}")
        return self._path_of(D, w), probe_b

    def _refuse(self, solution: Solutions, which: str, rows: Int[np.ndarray, " n"]) -> None:
        """Raise what is worst about these solutions; ``which`` names the inputs it is about."""
        for status, error, text in _REFUSED:
            bad = rows[solution.status == status]
            if bad.size:
                gap = np.abs(solution.relative_gap[bad]).max()
                who = which.format(_listed(bad))
                raise error(f"{self!r}, {who}: " + text.format(name=self.name, gap=gap))

    def _path_of(
        self, D: Float[np.ndarray, "d_sae d_model"], w: Float[np.ndarray, " d_model"]
    ) -> SteeringPath:
        """The path of these values, whatever arrays they come in or came in before."""
        if self._dictionary is None or not self._dictionary.holds(D):
            self._dictionary, self._path = Dictionary(D, name="D"), None
        if self._path is None or not np.array_equal(self._path.weight, w):
            self._path = SteeringPath.fit(self._dictionary, w)
        return self._path


class QPOptimalSteering(OptimalSteering):
    """``min 1ᵀδ + (λ/2)‖Dᵀδ‖²  s.t.  (Dw)ᵀδ ≥ τ − w·h − b, δ ≥ 0``."""

    name = "qp_optimal"

    def __init__(self, qp_lambda: float = 1.0, tau: float = 0.5):
        super().__init__(tau)
        qp_lambda = as_number("qp_lambda", qp_lambda)
        if not 0 < qp_lambda < np.inf:
            raise ValueError(f"qp_lambda must be > 0 and finite, got {qp_lambda}")
        self.qp_lambda = qp_lambda
        self.strength_name = f"tau at lambda={_short(qp_lambda)}"

    def __repr__(self) -> str:
        return f"QPOptimalSteering(qp_lambda={self.qp_lambda}, tau={self.tau})"

    def solve(self, path: SteeringPath, shortfall: Float[np.ndarray, " n"]) -> Solutions:
        """Solve the QP for every shortfall."""
        return path.qp(shortfall, qp_lambda=self.qp_lambda)


class ConvexOptimalSteering(OptimalSteering):
    """``min 1ᵀδ  s.t.  (Dw)ᵀδ ≥ τ − w·h − b, ‖Dᵀδ‖₂ ≤ ε, δ ≥ 0``."""

    name = "convex_optimal"

    def __init__(self, epsilon: float = 5.0, tau: float = 0.5):
        super().__init__(tau)
        epsilon = as_number("epsilon", epsilon)
        if not 0 < epsilon < np.inf:
            raise ValueError(f"epsilon must be > 0 and finite, got {epsilon}")
        self.epsilon = epsilon
        self.strength_name = f"epsilon at tau={_short(tau)}"

    def __repr__(self) -> str:
        return f"ConvexOptimalSteering(epsilon={self.epsilon}, tau={self.tau})"

    def solve(self, path: SteeringPath, shortfall: Float[np.ndarray, " n"]) -> Solutions:
        """Solve the SOCP for every shortfall."""
        return path.socp(shortfall, epsilon=self.epsilon)


def _listed(rows: Int[np.ndarray, " n"]) -> str:
    more = f" and {rows.size - _LISTED} more" if rows.size > _LISTED else ""
    return ", ".join(map(str, rows[:_LISTED])) + more


def _short(value: float) -> str:
    """As few digits as tell ``value`` from every other number."""
    return f"{value:g}" if float(f"{value:g}") == value else repr(float(value))
