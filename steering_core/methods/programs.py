"""The two convex programs as steering methods, and their solutions for every strength and input."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int

from steering_core.config.methods import is_program, mode_of, program_of, strength_grid
from steering_core.methods.base import SteeringMethod
from steering_core.methods.fixed_solutions import fixed_grid
from steering_core.methods.solutions import GridPoint, ModelUnits, solution_rows, with_split
from steering_core.optimize.checks import as_float64, as_number, as_numbers
from steering_core.optimize.dictionary import Dictionary
from steering_core.optimize.path import SteeringPath
from steering_core.optimize.solution import Solutions
from steering_core.probes.linear_probe import LinearProbe
from steering_core.progress import progress

if TYPE_CHECKING:
    from steering_core.config.schema import Settings


class InfeasibleError(ValueError):
    """No intervention satisfies the constraints of the program for this input."""


#: For each status without a vector: the error raised and its message.
_REFUSED = (
    ("infeasible", InfeasibleError, "{name} is infeasible"),
    ("failed", ArithmeticError, "the path cannot be followed so far in float64"),
    ("inaccurate", ArithmeticError, "the certified gap of the solution is {gap:.1e}"),
)
_LISTED = 20  # at most so many rows are named in an error


def shortfalls(
    logits: Float[np.ndarray, "n *k"],
    tau: float,
    shared_by: Float[np.ndarray, "m *k"] | None = None,
) -> Float[np.ndarray, "n *k"]:
    """Return what each input lacks of the margin, on one direction or on each of k, in logits.

    Args:
        logits: of the inputs.
        tau: the margin.
        shared_by: if given, every input gets the same vector: the one that brings the worst of
            these logits, on each direction, to the margin, and so all of them.

    Raises:
        ValueError: naming ``shared_by``, if it has no row.
    """
    if shared_by is None:
        return tau - logits
    if not len(shared_by):
        raise ValueError("shared_by: a shared vector needs rows that it is solved for")
    return np.broadcast_to(tau - shared_by.min(axis=0), logits.shape).copy()


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

    def shortfalls(
        self,
        residuals: Float[np.ndarray, "n d_model"],
        probe_w: Float[np.ndarray, " d_model"],
        probe_b: float,
        shared_by: Float[np.ndarray, "m d_model"] | None = None,
    ) -> Float[np.ndarray, " n"]:
        """Return the shortfall that is solved for each row, in float64.

        Args:
            residuals: of the inputs.
            probe_w: weight of the probe, oriented to the target class.
            probe_b: its bias.
            shared_by: residuals that a shared vector is solved for; see :func:`shortfalls`.
        """
        logits = residuals.astype(np.float64) @ probe_w + probe_b
        others = None if shared_by is None else shared_by.astype(np.float64) @ probe_w + probe_b
        return shortfalls(logits, self.tau, others)

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
        calls, so a further input costs a lookup. Each call also compares D with the kept one, in
        case it was changed in place. For many inputs use :meth:`compute_steering_vectors`, which
        compares once.

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
            unsolved: for inputs without a certified solution, ``"raise"`` an error or return a
                row of ``"nan"``.

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
        """Raise the error of the worst status, if any; its message calls the inputs ``which``."""
        for status, error, text in _REFUSED:
            bad = rows[solution.status == status]
            if bad.size:
                gap = np.abs(solution.relative_gap[bad]).max()
                who = which.format(_listed(bad))
                raise error(f"{self!r}, {who}: " + text.format(name=self.name, gap=gap))

    def _path_of(
        self, D: Float[np.ndarray, "d_sae d_model"], w: Float[np.ndarray, " d_model"]
    ) -> SteeringPath:
        """The path of D and w; the kept one if their values are the same."""
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


def grid(method: str, settings: "Settings", units: ModelUnits | None = None) -> list[GridPoint]:
    """Return every strength of ``method``, in the order of the configuration.

    Args:
        method: registered method.
        settings: of the experiment.
        units: with the units of the model, the parts of a program's strength are in both units;
            without them they are as configured.
    """
    if not is_program(method):
        return fixed_grid(method, settings)
    points = []
    for parts in strength_grid(method, settings):
        tau, qp_lambda, epsilon = parts["tau"], parts.get("lam"), parts.get("epsilon")
        program = make_program(method, tau, qp_lambda, epsilon)
        strength = tau if epsilon is None else epsilon
        point = GridPoint(
            method, len(points), program.strength_name, strength, tau, qp_lambda, epsilon
        )
        points.append(point if units is None else units.in_both(point, settings.units))
    return points


def make_program(
    method: str, tau: float, qp_lambda: float | None, epsilon: float | None
) -> OptimalSteering:
    """Return the program of a grid point.

    Args:
        method: registered program.
        tau: margin, logits.
        qp_lambda: λ of a QP, in the inverse of residual-stream units.
        epsilon: ε of an SOCP, in residual-stream units.

    Raises:
        ValueError: if ``method`` is no program, or its parameter is None.
    """
    if is_program(method) and program_of(method) == "qp" and qp_lambda is not None:
        return QPOptimalSteering(qp_lambda=qp_lambda, tau=tau)
    if is_program(method) and program_of(method) == "socp" and epsilon is not None:
        return ConvexOptimalSteering(epsilon=epsilon, tau=tau)
    raise ValueError(f"method: {method} is not a program, or its parameter is missing")


def fits_shared_vector(examples: pd.DataFrame, target_class: int) -> Bool[np.ndarray, " n"]:
    """Return the mask of the rows that a shared vector is fitted to.

    They are the validation rows outside the target class; test rows and prompts are excluded.
    """
    validation = (examples["split"] == "validation").to_numpy()
    away = (examples["label"] != target_class).fillna(False).to_numpy(dtype=bool)
    return validation & away


def solve_programs(
    points: Sequence[GridPoint],
    example_ids: Sequence[str],
    residuals: Float[np.ndarray, "n d_model"],
    probe: LinearProbe,
    path: SteeringPath,
    shared_by: Float[np.ndarray, "m d_model"] | None = None,
) -> pd.DataFrame:
    """Solve the program of every grid point for every input.

    Args:
        points: grid points of a program.
        example_ids: names of the inputs.
        residuals: their residuals, as the site sees them.
        probe: oriented to the target class.
        path: the path of (decoder, ``probe.weight_vector``); extended as far as needed.
        shared_by: as :meth:`OptimalSteering.shortfalls`.

    """
    frames = []
    for point in points:
        program = make_program(point.method, point.tau, point.qp_lambda, point.epsilon)
        shortfall = program.shortfalls(residuals, probe.weight_vector, probe.bias, shared_by)
        solved = program.solve(path, shortfall)
        frames.append(
            solution_rows(
                point,
                example_ids,
                status=solved.status,
                shortfall=solved.shortfall,
                position=solved.position,
                objective=solved.objective,
                dual_objective=solved.dual_objective,
                relative_gap=solved.relative_gap,
                dual_violation=solved.dual_violation,
                l0=np.where(solved.solved, solved.l0, np.nan),
                l1=solved.l1,
                residual_norm=solved.residual_norm,
            )
        )
    return pd.concat(frames, ignore_index=True)


def solve_program_grid(
    settings: "Settings",
    examples: pd.DataFrame,
    residuals: Float[np.ndarray, "n d_model"],
    probe: LinearProbe,
    path: SteeringPath,
    target_class: int,
    units: ModelUnits | None = None,
) -> pd.DataFrame:
    """Return a row per (grid point of a program, input), with the input's ``split``.

    Args:
        settings: methods and strengths.
        examples: ``example_id``, ``split`` and ``label`` of the n inputs.
        residuals: of the inputs, as the site sees them.
        probe: oriented to the target class.
        path: of the probe on the dictionary.
        target_class: the class to steer to.
        units: of the model; without them, strengths are taken as they are configured.
    """
    ids = examples["example_id"].tolist()
    outside = residuals[fits_shared_vector(examples, target_class)]
    frames = []
    for method in progress(settings.methods, "solving"):
        shared_by = outside if mode_of(method) == "shared" else None
        points = grid(method, settings, units)
        frames.append(solve_programs(points, ids, residuals, probe, path, shared_by))
    return with_split(frames, examples)


def _listed(rows: Int[np.ndarray, " n"]) -> str:
    more = f" and {rows.size - _LISTED} more" if rows.size > _LISTED else ""
    return ", ".join(map(str, rows[:_LISTED])) + more


def _short(value: float) -> str:
    """``value`` in the fewest digits that identify it."""
    return f"{value:g}" if float(f"{value:g}") == value else repr(float(value))
