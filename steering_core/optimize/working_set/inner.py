"""The inner solvers of the working set: OSQP for the QP, Clarabel or SCS for the cone program."""

from dataclasses import dataclass, replace
from typing import Any, Literal

import clarabel
import numpy as np
import osqp
import scs
from jaxtyping import Float, Int
from scipy import sparse
from scipy.optimize import linprog

from steering_core.optimize.working_set.active_set import Program

ConeSolver = Literal["clarabel", "scs"]
Raw = tuple[
    str, Float[np.ndarray, " n"], Float[np.ndarray, " m"], int
]  # status, primal, dual, iterations

_OSQP = {
    "verbose": False,
    "eps_abs": 1e-6,
    "eps_rel": 1e-6,
    "max_iter": 20_000,
    "polishing": False,  # active_set makes the solution exact
    "adaptive_rho_interval": 50,  # by iterations, not by time: the same run gives the same bytes
    "check_termination": 5,
}
_SCS = {"verbose": False, "eps_abs": 1e-7, "eps_rel": 1e-7, "max_iters": 50_000}
_NEAR = 1e-11  # tolerance of Clarabel's QP, small enough to read off active sets


@dataclass(frozen=True)
class SolverResult:
    """What an inner solver found: approximate x and μ (and η of a cone program).

    ``status`` is ``"solved"``, ``"infeasible"`` or ``"failed"``; x is NaN unless solved.
    """

    status: str
    x: Float[np.ndarray, " n"]
    mu: Float[np.ndarray, " k"]
    iterations: int
    eta: float = 1.0
    solver: str = "osqp"


class WarmOSQP:
    """``min cᵀx + ½ xᵀGx  s.t. A x ≥ s, 0 ≤ x ≤ u`` on a set of columns, input after input.

    While the columns stay the same, only bounds and the linear term change, and the factorisation
    is kept. When the columns change, the solver is set up again. Each solve starts from the last
    solution, column by column, unless ``warm`` is False.
    """

    def __init__(self, warm: bool = True) -> None:
        self._warm = warm
        self._solver: osqp.OSQP | None = None
        self._ids = np.zeros(0, dtype=np.int64)
        self._x, self._margin_y, self._box_y = np.zeros(0), np.zeros(0), np.zeros(0)

    def solve(
        self, ids: Int[np.ndarray, " n"], program: Program, s: Float[np.ndarray, " k"]
    ) -> SolverResult:
        """Solve for one right-hand side, scaled so that x is of order one inside the solver."""
        k, n = program.margins.shape
        self._prepare(ids, program)
        sigma = float(s.max())
        self._solver.update(
            q=program.cost / sigma,
            l=np.concatenate([s / sigma, np.zeros(n)]),
            u=np.concatenate([np.full(k, np.inf), program.caps / sigma]),
        )
        if self._warm:
            self._solver.warm_start(x=self._x, y=np.concatenate([self._margin_y, self._box_y]))
        else:
            self._solver.warm_start(x=np.zeros(n), y=np.zeros(k + n))
        result = self._solver.solve(raise_error=False)
        status, iterations = result.info.status, int(result.info.iter)
        if status.startswith("primal infeasible"):
            return no_solution("infeasible", n, k, iterations)
        if status not in ("solved", "solved inaccurate"):
            return no_solution("failed", n, k, iterations)
        self._x, self._margin_y, self._box_y = result.x, result.y[:k], result.y[k:]
        mu = np.maximum(-self._margin_y, 0.0) * sigma
        return SolverResult("solved", np.maximum(result.x, 0.0) * sigma, mu, iterations)

    def _prepare(self, ids: Int[np.ndarray, " n"], program: Program) -> None:
        if self._solver is not None and np.array_equal(ids, self._ids):
            return
        k, n = program.margins.shape
        _, old, new = np.intersect1d(self._ids, ids, return_indices=True)
        x, box = np.zeros(n), np.zeros(n)
        x[new], box[new] = self._x[old], self._box_y[old]
        margin = self._margin_y if self._margin_y.size == k else np.zeros(k)
        self._x, self._margin_y, self._box_y, self._ids = x, margin, box, ids.copy()
        self._solver = osqp.OSQP()
        self._solver.setup(
            sparse.csc_matrix(np.triu(program.gram)),
            np.ones(n),
            sparse.vstack([sparse.csc_matrix(program.margins), sparse.eye(n)], format="csc"),
            np.zeros(k + n),
            np.full(k + n, np.inf),
            **_OSQP,
        )


def solve_quadratic(program: Program, s: Float[np.ndarray, " k"]) -> SolverResult:
    """The program of :class:`WarmOSQP` by Clarabel: slower, but closer to the optimum."""
    k, n = program.margins.shape
    sigma = float(s.max())
    finite = np.isfinite(program.caps)
    matrix = sparse.csc_matrix(np.vstack([-program.margins, -np.eye(n), np.eye(n)[finite]]))
    right = np.concatenate([-s / sigma, np.zeros(n), program.caps[finite] / sigma])
    price = max(1.0, float(program.cost.max()) / sigma)  # the objective is of order one
    quadratic = sparse.csc_matrix(np.triu(program.gram) / price)
    cost = program.cost / (sigma * price)
    cones = [clarabel.NonnegativeConeT(right.size)]
    status, x, dual, iterations = _clarabel(quadratic, cost, matrix, right, cones, _NEAR)
    if status != "solved":
        again = _clarabel(quadratic, cost, matrix, right, cones)
        status, x, dual, iterations = *again[:3], iterations + again[3]
    if status != "solved":
        return no_solution(status, n, k, iterations)
    x, mu = np.maximum(x, 0.0) * sigma, np.maximum(dual[:k], 0.0) * sigma * price
    return SolverResult(status, x, mu, iterations, solver="clarabel")


def solve_cone(
    program: Program, r: Float[np.ndarray, " k"], epsilon: float, solver: ConeSolver
) -> SolverResult:
    """``min cᵀx s.t. A x ≥ r, ‖Eᵀx‖ ≤ ε, 0 ≤ x ≤ u``.

    ``‖Eᵀx‖`` enters through a square root of the Gram matrix, so the cone has as many rows as
    there are columns, not d_model.
    """
    k, n = program.margins.shape
    sigma = float(r.max())
    values, vectors = np.linalg.eigh(program.gram)
    root = np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T
    root = root[values > 1e-14 * values[-1]]
    finite = np.isfinite(program.caps)
    rows = [-program.margins, -np.eye(n), np.eye(n)[finite], np.zeros((1, n)), -root]
    right = np.concatenate(
        [
            -r / sigma,
            np.zeros(n),
            program.caps[finite] / sigma,
            [epsilon / sigma],
            np.zeros(root.shape[0]),
        ]
    )
    matrix = sparse.csc_matrix(np.vstack(rows))
    linear, cone = k + n + int(finite.sum()), 1 + root.shape[0]
    if solver == "scs":
        status, x, dual, iterations = _scs(program.cost, matrix, right, linear, cone)
    else:
        cones = [clarabel.NonnegativeConeT(linear), clarabel.SecondOrderConeT(cone)]
        none = sparse.csc_matrix((n, n))
        status, x, dual, iterations = _clarabel(none, program.cost, matrix, right, cones)
    if status != "solved":
        return no_solution(status, n, k, iterations)
    x, mu = np.maximum(x, 0.0) * sigma, np.maximum(dual[:k], 0.0)
    return SolverResult(status, x, mu, iterations, dual[linear] / epsilon, solver)


def solve_linear(
    margins: Float[np.ndarray, "k n"],
    r: Float[np.ndarray, " k"],
    caps: Float[np.ndarray, " n"],
    cost: Float[np.ndarray, " n"],
) -> SolverResult:
    """``min cᵀx s.t. A x ≥ r, 0 ≤ x ≤ u`` (HiGHS): the limit of a slack budget.

    Columns are scaled to a largest gain of one. ``"infeasible"`` is HiGHS's status, not a proof.
    """
    sigma, gain = float(r.max()), np.abs(margins).max(axis=0, initial=0.0)
    gain = np.where(gain > 0, gain, 1.0)
    price = cost / gain
    least = float(price.min(initial=np.inf))
    found = highs(margins / gain, r / sigma, caps * gain / sigma, price / least)
    return replace(found, x=found.x * sigma / gain, mu=found.mu * least)


def highs(
    margins: Float[np.ndarray, "k n"],
    r: Float[np.ndarray, " k"],
    caps: Float[np.ndarray, " n"],
    cost: Float[np.ndarray, " n"],
    tolerance: float | None = None,
) -> SolverResult:
    """``min cᵀx s.t. A x ≥ r, 0 ≤ x ≤ u`` by HiGHS, unscaled; ``"failed"`` if numbers overflow."""
    k, n = margins.shape
    names = ("primal_feasibility_tolerance", "dual_feasibility_tolerance")
    options = {} if tolerance is None else {name: tolerance for name in names}
    bounds = np.stack([np.zeros(n), caps], axis=1)
    try:
        result = linprog(
            cost, A_ub=-margins, b_ub=-r, bounds=bounds, method="highs", options=options
        )
    except ValueError:  # scaling made a number infinite
        return no_solution("failed", n, k, 0)
    if result.status != 0:
        return no_solution("infeasible" if result.status == 2 else "failed", n, k, int(result.nit))
    mu = np.maximum(-result.ineqlin.marginals, 0.0)
    return SolverResult("solved", np.maximum(result.x, 0.0), mu, int(result.nit), 0.0, "highs")


def _clarabel(
    quadratic: sparse.csc_matrix,
    cost: Float[np.ndarray, " n"],
    matrix: sparse.csc_matrix,
    right: Float[np.ndarray, " m"],
    cones: list[Any],
    tolerance: float | None = None,
) -> Raw:
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.max_threads = 1
    if tolerance is not None:
        settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = tolerance
    result = clarabel.DefaultSolver(quadratic, cost, matrix, right, cones, settings).solve()
    status = {"Solved": "solved", "AlmostSolved": "solved", "PrimalInfeasible": "infeasible"}
    name = status.get(str(result.status), "failed")
    return name, np.array(result.x), np.array(result.z), int(result.iterations)


def _scs(
    cost: Float[np.ndarray, " n"],
    matrix: sparse.csc_matrix,
    right: Float[np.ndarray, " m"],
    linear: int,
    cone: int,
) -> Raw:
    data = {"c": cost, "A": matrix, "b": right}
    solver = scs.SCS(data, {"l": linear, "q": [cone]}, **_SCS)
    result = solver.solve()
    name = {1: "solved", 2: "solved", -2: "infeasible", -7: "infeasible"}.get(
        result["info"]["status_val"], "failed"
    )
    return name, result["x"], result["y"], int(result["info"]["iter"])


def no_solution(status: str, n: int, k: int, iterations: int) -> SolverResult:
    """The result of a solver that found no solution."""
    return SolverResult(status, np.full(n, np.nan), np.full(k, np.nan), int(iterations), np.nan)
