"""Which features the quadratic program uses."""

import numpy as np
import pandas as pd
from jaxtyping import Float

from steering_core.optimize.path import SteeringPath


def coefficient_share(solutions: pd.DataFrame, path: SteeringPath) -> Float[np.ndarray, " d_sae"]:
    """Return each feature's share of the summed coefficients of the QP rows; zeros without any."""
    rows = solutions[solutions["method"] == "qp_optimal"]
    rows = rows[rows["status"] == "optimal"]
    if rows.empty:
        return np.zeros(path.d_sae)
    solutions_at = path.at(
        rows["position"].to_numpy(), rows["shortfall"].to_numpy(), "qp", rows["lam"].to_numpy()
    )
    total = np.asarray(solutions_at.delta.sum(axis=0)).ravel()
    return total / total.sum()
