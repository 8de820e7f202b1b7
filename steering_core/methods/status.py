"""Under which statuses a row of the solutions has an intervention."""

import numpy as np
import pandas as pd
from jaxtyping import Bool

#: Statuses under which an intervention exists.
SOLVED = ("fixed", "optimal", "already_satisfied")


def solved(rows: pd.DataFrame) -> Bool[np.ndarray, " n"]:
    """Return which rows have an intervention."""
    return rows["status"].isin(SOLVED).to_numpy()
