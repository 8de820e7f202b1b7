"""The exact trade-off between sparsity, size and margin, without a sweep."""

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from steering_core.optimize.checks import as_vector
from steering_core.optimize.path import SteeringPath
from steering_core.optimize.solution import (
    FAILED,
    INACCURATE,
    INFEASIBLE,
    OPTIMAL,
    SATISFIED,
    Solutions,
)

COLUMNS = (
    *("program", "tau", "parameter", "l1", "l0", "residual_norm", "objective", "margin"),
    *("n_solved", "n_satisfied", "n_infeasible", "n_inaccurate", "n_failed"),
)
KNOT_COLUMNS = ("position", "l1", "residual_norm", "l0", "l0_after")


def unit_frontier(path: SteeringPath) -> pd.DataFrame:
    """L1, L0 and ``‖Dᵀδ‖`` per unit of shortfall at every knot of the fitted range.

    A row per knot: ``position`` s, and of ``u(s) = y(s)/s`` the columns ``l1`` (rising in s),
    ``residual_norm`` (falling) and ``l0``. The first row is the limit s → 0, the last, if the
    path is complete, s → ∞. At a knot a feature has just left or is about to enter, so there is
    often one more feature between two rows: ``l0_after`` counts the features between a row and the
    next, and is empty in the last row. Between two rows, at a fraction t of the way in s,

        l1 = ((1−t) s₀ l1₀ + t s₁ l1₁) / s

    exactly, and the squared norm is a quadratic over s². For a shortfall r multiply l1 and
    residual_norm by r; the QP of (λ, r) is the row at s = λ r, the SOCP of (ε, r) the row at
    residual_norm = ε/r.
    """
    knots = path.knots
    if not path.feasible or knots.mu.size < 2:
        return pd.DataFrame({name: [] for name in KNOT_COLUMNS})
    position = np.concatenate([[0.0], knots.s[1:], [np.inf] if knots.complete else []])
    place = knots.unit_place(position)
    return pd.DataFrame(
        {
            "position": position,
            "l1": knots.blend("l1", place),
            "residual_norm": np.sqrt(knots.blend_square(place)),
            "l0": knots.blend_l0(place),
            "l0_after": pd.array([*knots.l0_between.tolist(), None], dtype="Int64"),
        },
        columns=list(KNOT_COLUMNS),
    )


def frontier(
    path: SteeringPath,
    logits: Any,
    *,
    tau: Any = (0.5,),
    qp_lambda: Any = (),
    epsilon: Any = (),
) -> pd.DataFrame:
    """Means over inputs along τ, λ and ε, in closed form.

    Args:
        path: extended as far as needed.
        logits: ``w·h + b`` of each input, ``(n,)``, oriented to the target class; the shortfall
            is ``τ − logit``.
        tau: margins.
        qp_lambda: penalties of the QP.
        epsilon: budgets of the SOCP.

    Returns:
        A row per program, τ and parameter: ``program``, ``tau``, ``parameter``, means of
        ``l1``, ``l0``, ``residual_norm`` and ``objective`` over the inputs with a certified
        solution, the mean ``margin`` they end at, and the counts ``n_solved``, of them
        ``n_satisfied``, and of the others ``n_infeasible``, ``n_inaccurate`` and ``n_failed``.
        Means are empty (NaN) where no input has a certified solution.

    Raises:
        ValueError: naming the argument.
    """
    logits = as_vector("logits", logits)
    rows = []
    for margin in as_vector("tau", tau):
        shortfall = margin - logits
        points = [
            ("qp", value, path.qp(shortfall, value)) for value in as_vector("qp_lambda", qp_lambda)
        ]
        points += [
            ("socp", value, path.socp(shortfall, value)) for value in as_vector("epsilon", epsilon)
        ]
        for program, value, solved in points:
            head = {"program": program, "tau": margin, "parameter": value}
            rows.append({**head, **_means(solved, logits)})
    return pd.DataFrame(rows, columns=list(COLUMNS))


def curves(path: SteeringPath, logits: Any, tau: Any, points: int = 160) -> pd.DataFrame:
    """The curve of either program at each margin, over the fitted range of the path.

    λ rises geometrically over four decades to the end of the fitted range. ε covers the budgets
    that every input can meet on it, so all means are over the same inputs.

    Args:
        path: only its fitted range is used.
        logits: as in :func:`frontier`.
        tau: margins. A margin that every input already passes, or none can reach, has no curve.
        points: on each curve.

    Returns:
        As :func:`frontier`.
    """
    logits = as_vector("logits", logits)
    parts = []
    for margin in as_vector("tau", tau):
        worst = margin - logits.min(initial=np.inf)
        if worst <= 0 or not path.feasible or not path.knots.s[-1] > 0:
            continue
        # slightly inside: after multiplication by `worst` it must not exceed the range
        last = float(path.knots.s[-1]) / worst * (1 - 1e-12)
        ends = path.qp([worst, worst], qp_lambda=[last, 1e-9 * last]).residual_norm
        epsilon = np.unique(np.geomspace(*ends * (1 + 1e-9), points))
        qp_lambda = np.geomspace(1e-4, 1.0, points) * last
        parts.append(frontier(path, logits, tau=margin, qp_lambda=qp_lambda, epsilon=epsilon))
    return pd.concat(parts, ignore_index=True) if parts else frontier(path, logits, tau=())


def _means(solved: Solutions, logits: Float[np.ndarray, " n"]) -> dict[str, float]:
    has = (solved.code == OPTIMAL) | (solved.code == SATISFIED)
    reached = logits + np.maximum(solved.shortfall, 0.0)
    columns = {
        "l1": solved.l1,
        "l0": solved.l0,
        "residual_norm": solved.residual_norm,
        "objective": solved.objective,
        "margin": reached,
    }
    means = {name: float(v[has].mean()) if has.any() else np.nan for name, v in columns.items()}
    return {
        **means,
        "n_solved": int(has.sum()),
        "n_satisfied": int((solved.code == SATISFIED).sum()),
        "n_infeasible": int((solved.code == INFEASIBLE).sum()),
        "n_inaccurate": int((solved.code == INACCURATE).sum()),
        "n_failed": int((solved.code == FAILED).sum()),
    }
