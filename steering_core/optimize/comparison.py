"""How much smaller an intervention gets when active features may also be turned down."""

from typing import Any

import numpy as np
import pandas as pd

from steering_core.optimize.limits import ablation_limits
from steering_core.optimize.outcome import WorkingSetSolutions
from steering_core.optimize.working_set import WorkingSet


def signed_saving(
    working_set: WorkingSet,
    shortfall: Any,
    activations: Any,
    *,
    lam: float | None = None,
    epsilon: float | None = None,
) -> pd.DataFrame:
    """Solve each input with ``δ ≥ 0`` and with ``δ ≥ −f(h)``.

    Args:
        working_set: of the decoder and the directions.
        shortfall: r, ``(n, k)``, or ``(n,)`` with one direction.
        activations: f(h) >= 0, ``(n, d_sae)``, dense or sparse.
        lam: λ of the QP, or
        epsilon: ε of the SOCP.

    Returns:
        A row per input: ``status_positive``, ``status_signed``; ``objective``, ``l1``, ``l0`` and
        ``residual_norm`` of each with those suffixes; and ``saving``, the share of the objective
        that turning down saves (NaN unless both are solved and the input was not satisfied).
        An input may be infeasible with ``δ ≥ 0`` only.

    Raises:
        ValueError: if not exactly one of ``lam`` and ``epsilon`` is given, or naming an argument.
    """
    if (lam is None) == (epsilon is None):
        raise ValueError("Give one of lam and epsilon.")

    def solve(limits: Any) -> WorkingSetSolutions:
        if lam is not None:
            return working_set.qp(shortfall, lam, limits)
        return working_set.socp(shortfall, epsilon, limits)

    table = {}
    both = {"positive": solve(None), "signed": solve(ablation_limits(activations))}
    for name, solved in both.items():
        table[f"status_{name}"] = solved.status
        for column in ("objective", "l1", "l0", "residual_norm"):
            values = np.asarray(getattr(solved, column), dtype=float)
            table[f"{column}_{name}"] = np.where(solved.solved, values, np.nan)
    before = np.where(table["objective_positive"] > 0, table["objective_positive"], np.nan)
    table["saving"] = 1.0 - table["objective_signed"] / before
    return pd.DataFrame(table)
