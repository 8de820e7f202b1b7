"""The textbook CVXPY formulation of every program, for tests and benchmarks only."""

from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np
from jaxtyping import Float

_STATUS = {
    cp.OPTIMAL: "optimal",
    cp.OPTIMAL_INACCURATE: "inaccurate",
    cp.INFEASIBLE: "infeasible",
    cp.INFEASIBLE_INACCURATE: "infeasible",
}


@dataclass(frozen=True)
class Reference:
    """The result of CVXPY: status in this package's terms, objective and δ (NaN if unsolved)."""

    status: str
    objective: float
    delta: Float[np.ndarray, " d_sae"]


def solve_reference(
    decoder: Float[np.ndarray, "d_sae d_model"],
    directions: Float[np.ndarray, "k d_model"],
    shortfall: Float[np.ndarray, " k"],
    *,
    qp_lambda: float | None = None,
    epsilon: float | None = None,
    lower: float | Float[np.ndarray, " d_sae"] = 0.0,
    upper: float | Float[np.ndarray, " d_sae"] = np.inf,
    solver: str = cp.CLARABEL,
    **options: Any,
) -> Reference:
    """Solve one program for one input directly from its definition, without a warm start.

    ``min ‖δ‖₁ + (λ/2)‖Dᵀδ‖²`` (``qp_lambda``) or ``min ‖δ‖₁ s.t. ‖Dᵀδ‖ ≤ ε`` (``epsilon``), subject
    to ``(D w_j)ᵀδ ≥ r_j`` for each direction and ``lower ≤ δ ≤ upper``. For a shared vector of a
    batch, pass each direction's largest shortfall.

    Raises:
        ValueError: if not exactly one of ``qp_lambda`` and ``epsilon`` is given.
    """
    if (qp_lambda is None) == (epsilon is None):
        raise ValueError("Give one of qp_lambda and epsilon.")
    decoder, directions = np.asarray(decoder, float), np.atleast_2d(directions).astype(float)
    shortfall = np.atleast_1d(shortfall).astype(float)
    delta = cp.Variable(decoder.shape[0])
    signed = np.min(lower) < 0
    cost = cp.norm1(delta) if signed else cp.sum(delta)
    residual = decoder.T @ delta
    limits = [(decoder @ directions.T).T @ delta >= shortfall, delta >= lower]
    if np.isfinite(upper).any():
        limits.append(delta <= upper)
    if qp_lambda is not None:
        problem = cp.Problem(cp.Minimize(cost + qp_lambda / 2 * cp.sum_squares(residual)), limits)
    else:
        problem = cp.Problem(cp.Minimize(cost), [*limits, cp.norm(residual, 2) <= epsilon])
    try:
        problem.solve(solver=solver, **options)
    except cp.SolverError:
        return Reference("failed", np.nan, np.full(decoder.shape[0], np.nan))
    status = _STATUS.get(problem.status, "failed")
    if delta.value is None:
        return Reference(status, np.nan, np.full(decoder.shape[0], np.nan))
    return Reference(status, float(problem.value), delta.value)
