"""Inner solvers of the working set: OSQP for the QP, Clarabel or SCS for the cone program."""

from dataclasses import dataclass
from typing import Literal

import clarabel
import numpy as np
import osqp
import scs
from jaxtyping import Float
from scipy import sparse
from scipy.optimize import linprog

from steering_core.optimize.active_set import Program

ConeSolver = Literal["clarabel", "scs"]

_OSQP = {
    "verbose": False,
    "eps_abs": 1e-6,
    "eps_rel": 1e-6,
    "max_iter": 20_000,
    "polishing": False,  # finished exactly by active_set
    "adaptive_rho_interval": 50,  # by iterations, not by time: the same run gives the same bytes
    "check_termination": 5,
}


@dataclass(frozen=True)
class Inner:
    """What an inner solver found: approximate x and μ (and η of a cone program).

    ``status`` is ``"solved"``, ``"infeasible"`` or ``"failed"``; x is NaN unless solved.
    """

    status: str
    x: Float[np.ndarray, " n"]
    mu: Float[np.ndarray, " k"]
    iterations: int
    eta: float = 1.0


class OSQPInner:
    """``min 1ᵀx + ½ xᵀGx  s.t. A x ≥ s, 0 ≤ x ≤ c``, set up once and updated input by input.

    Only the bounds and the linear term change between inputs, so the factorisation stays, and
    each solve starts from the last one's solution (``warm``).
    """

    def __init__(self, gram: np.ndarray, margins: np.ndarray, warm: bool = True) -> None:
        self._k, self._n = margins.shape
        self._warm = warm
        self._solver = osqp.OSQP()
        self._solver.setup(
            sparse.csc_matrix(np.triu(gram)),
            np.ones(self._n),
            sparse.vstack([sparse.csc_matrix(margins), sparse.eye(self._n)], format="csc"),
            np.zeros(self._k + self._n),
            np.full(self._k + self._n, np.inf),
            **_OSQP,
        )
        self._last = (np.zeros(self._n), np.zeros(self._k + self._n))

    @property
    def last(self) -> tuple[np.ndarray, np.ndarray]:
        """Last ``(x, y)``, in the solver's scaling; the start of the next solve."""
        return self._last

    def start(self, x: np.ndarray, y: np.ndarray) -> None:
        """Start the next solve from the point of a smaller problem whose columns came first."""
        k, n = self._k, x.size
        full_x, full_y = np.zeros(self._n), np.zeros(self._k + self._n)
        full_x[:n], full_y[:k], full_y[k : k + n] = x, y[:k], y[k:]
        self._last = (full_x, full_y)

    def solve(self, s: Float[np.ndarray, " k"], caps: Float[np.ndarray, " n"]) -> Inner:
        """Solve for one right-hand side; x is scaled to order one inside the solver."""
        sigma = float(s.max())
        self._solver.update(
            q=np.full(self._n, 1.0 / sigma),
            l=np.concatenate([s / sigma, np.zeros(self._n)]),
            u=np.concatenate([np.full(self._k, np.inf), caps / sigma]),
        )
        if not self._warm:
            self._last = (np.zeros(self._n), np.zeros(self._k + self._n))
        self._solver.warm_start(x=self._last[0], y=self._last[1])
        result = self._solver.solve(raise_error=False)
        if result.info.status in ("primal infeasible", "primal infeasible inaccurate"):
            return _nothing("infeasible", self._n, self._k, result.info.iter)
        if result.info.status not in ("solved", "solved inaccurate"):
            return _nothing("failed", self._n, self._k, result.info.iter)
        self._last = (result.x, result.y)
        mu = np.maximum(-result.y[: self._k], 0.0) * sigma
        return Inner("solved", np.maximum(result.x, 0.0) * sigma, mu, int(result.info.iter))


def solve_cone(
    program: Program, r: Float[np.ndarray, " k"], epsilon: float | None, solver: ConeSolver
) -> Inner:
    """``min 1ᵀx s.t. A x ≥ r, ‖Eᵀx‖ ≤ ε, 0 ≤ x ≤ c`` or, without ε, ``min ‖Eᵀx‖`` instead.

    In both, ``‖Eᵀx‖`` enters through a square root of the Gram matrix, so the cone has as many
    rows as there are columns, not d_model. Without ε, η is the attained norm.
    """
    k, n = program.margins.shape
    sigma = float(r.max())
    values, vectors = np.linalg.eigh(program.gram)
    root = np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T
    root = root[values > 1e-14 * values[-1]]
    finite = np.isfinite(program.caps)
    least = epsilon is None
    cost = np.concatenate([np.zeros(n), [1.0]]) if least else np.ones(n)
    extra = 1 if least else 0  # one more variable, the bound of the norm
    head = -np.eye(n + extra)[-1:] if least else np.zeros((1, n))
    rows = [
        -np.pad(program.margins, ((0, 0), (0, extra))),
        -np.eye(n, n + extra),
        np.eye(n, n + extra)[finite],
        head,
        -np.pad(root, ((0, 0), (0, extra))),
    ]
    right = [
        -r / sigma,
        np.zeros(n),
        program.caps[finite] / sigma,
        [0.0 if least else epsilon / sigma],
        np.zeros(root.shape[0]),
    ]
    matrix = sparse.csc_matrix(np.vstack(rows))
    linear, cone = k + n + int(finite.sum()), 1 + root.shape[0]
    call = _clarabel if solver == "clarabel" else _scs
    status, x, dual, iterations = call(cost, matrix, np.concatenate(right), linear, cone)
    if status != "solved":
        return _nothing(status, n, k, iterations)
    eta = float(x[n]) * sigma if least else dual[linear] / epsilon
    return Inner(status, np.maximum(x[:n], 0.0) * sigma, np.maximum(dual[:k], 0.0), iterations, eta)


def solve_linear(
    margins: Float[np.ndarray, "k n"], r: Float[np.ndarray, " k"], caps: Float[np.ndarray, " n"]
) -> Inner:
    """``min 1ᵀx s.t. A x ≥ r, 0 ≤ x ≤ c`` (HiGHS): feasibility, and the limit of a slack budget."""
    k, n = margins.shape
    sigma = float(r.max())
    result = linprog(
        np.ones(n),
        A_ub=-margins,
        b_ub=-r / sigma,
        bounds=np.stack([np.zeros(n), caps / sigma], axis=1),
        method="highs",
    )
    if result.status != 0:
        return _nothing("infeasible" if result.status == 2 else "failed", n, k, int(result.nit))
    mu = np.maximum(-result.ineqlin.marginals, 0.0)
    return Inner("solved", np.maximum(result.x, 0.0) * sigma, mu, int(result.nit), 0.0)


def _clarabel(cost, matrix, right, linear, cone):
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.max_threads = 1
    empty = sparse.csc_matrix((cost.size, cost.size))
    cones = [clarabel.NonnegativeConeT(linear), clarabel.SecondOrderConeT(cone)]
    result = clarabel.DefaultSolver(empty, cost, matrix, right, cones, settings).solve()
    status = {"Solved": "solved", "AlmostSolved": "solved", "PrimalInfeasible": "infeasible"}
    name = status.get(str(result.status), "failed")
    return name, np.array(result.x), np.array(result.z), int(result.iterations)


def _scs(cost, matrix, right, linear, cone):
    data = {"c": cost, "A": matrix, "b": right}
    solver = scs.SCS(
        data, {"l": linear, "q": [cone]}, verbose=False, eps_abs=1e-7, eps_rel=1e-7, max_iters=50_000
    )
    result = solver.solve()
    name = {1: "solved", 2: "solved", -2: "infeasible", -7: "infeasible"}.get(
        result["info"]["status_val"], "failed"
    )
    return name, result["x"], result["y"], int(result["info"]["iter"])


def _nothing(status: str, n: int, k: int, iterations: int) -> Inner:
    return Inner(status, np.full(n, np.nan), np.full(k, np.nan), int(iterations), np.nan)
