"""The programs' frontier along their whole parameter range, without a sweep.

λ and ε move along the same path, and L1, L0 and ‖Dᵀδ‖ are closed forms on it, so a curve costs
one lookup per point and input, not a solve.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from steering_core.optimize.path import SteeringPath
from steering_core.optimize.solution import Solutions

_POINTS = 160


def frontier_table(
    path: SteeringPath,
    logits: Float[np.ndarray, " n"],
    margins: Sequence[float],
    points: int = _POINTS,
) -> pd.DataFrame:
    """Return the curves of both programs at each margin, as means over the inputs.

    Args:
        path: of the oriented probe; only its fitted range is used.
        logits: ``w·h + b`` of the inputs.
        margins: values of τ.
        points: on each curve, spaced geometrically.

    Returns:
        ``program`` (qp, socp), ``margin``, ``parameter`` (λ, ε), ``l0``, ``l1``,
        ``residual_norm``. ε covers the budgets that every input can meet on the fitted range.
    """
    rows = []
    for margin in margins:
        shortfall = margin - logits
        worst = float(shortfall.max())
        if worst <= 0 or not path.feasible:
            continue
        last = float(path.knots.s[-1])
        for lam in np.geomspace(1e-4, 1.0, points) * last / worst:
            rows.append(_point("qp", margin, lam, path.qp(shortfall, lam=lam)))
        ends = path.qp(np.array([worst, worst]), lam=np.array([1.0, 1e-9]) * last / worst)
        for epsilon in np.geomspace(*ends.residual_norm * (1 + 1e-9), points):
            rows.append(_point("socp", margin, epsilon, path.socp(shortfall, epsilon=epsilon)))
    return pd.DataFrame(rows)


def grid_points(solutions: pd.DataFrame) -> pd.DataFrame:
    """Return the sweep's own points in the same columns, where every input was solved."""
    static = {"qp_optimal": ("qp", "lam"), "convex_optimal": ("socp", "epsilon")}
    rows = []
    for (method, _), group in solutions.groupby(["method", "strength_index"], sort=True):
        if method not in static or not group["residual_norm"].notna().all():
            continue
        program, parameter = static[method]
        rows.append(
            {
                "program": program,
                "margin": group["tau"].iloc[0],
                "parameter": group[parameter].iloc[0],
                **group[["l0", "l1", "residual_norm"]].mean().to_dict(),
            }
        )
    columns = ["program", "margin", "parameter", "l0", "l1", "residual_norm"]
    return pd.DataFrame(rows, columns=columns)


def _point(program: str, margin: float, parameter: float, at: Solutions) -> dict[str, object]:
    return {
        "program": program,
        "margin": margin,
        "parameter": float(parameter),
        "l0": float(at.l0.mean()),
        "l1": float(at.l1.mean()),
        "residual_norm": float(at.residual_norm.mean()),
    }
