"""A floor of the standard deviations that columns are divided by."""

import numpy as np
from jaxtyping import Bool, Float

#: Of the median column's standard deviation. In trained models the least variable columns of the
#: residual stream have about half of it, so that the floor changes nothing there.
FLOOR = 0.1
#: Of the largest standard deviation: below it a column is constant up to float32's rounding.
_CONSTANT = 1e-6


def floored_spread(
    spread: Float[np.ndarray, " d"],
) -> tuple[Float[np.ndarray, " d"], Bool[np.ndarray, " d"]]:
    """Return standard deviations, none far below the others, and where that changed one.

    A weight on a standardised column is divided by the column's standard deviation to act on the
    column itself. On one that hardly varies it becomes huge and rests on a difference that may be
    rounding. No value that is returned is below a tenth of the median; columns that are constant
    do not count for the median.

    Args:
        spread: standard deviation of each column, not negative.
    """
    live = spread > _CONSTANT * spread.max(initial=0.0)
    if not live.any():
        return spread.copy(), np.zeros(spread.shape, dtype=bool)
    floor = FLOOR * float(np.median(spread[live]))
    return np.maximum(spread, floor), (spread > 0) & (spread < floor)
