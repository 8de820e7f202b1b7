"""A floor for the standard deviations by which columns are divided."""

import numpy as np
from jaxtyping import Bool, Float

#: The floor as a share of the median standard deviation. In trained models the least variable
#: columns of the residual stream have about half the median, so the floor changes nothing there.
FLOOR = 0.1
#: A column below this share of the largest standard deviation is constant up to float32 rounding.
_CONSTANT = 1e-6


def floored_spread(
    spread: Float[np.ndarray, " d"],
) -> tuple[Float[np.ndarray, " d"], Bool[np.ndarray, " d"]]:
    """Return standard deviations with a floor, and a mask of those it raised from above zero.

    To act on a raw column, the weight of a standardised column is divided by the column's standard
    deviation. For a nearly constant column this weight would be huge and rest on differences that
    may be rounding errors. So the floor is a tenth of the median; constant columns do not count for
    the median.

    Args:
        spread: standard deviation of each column, not negative.
    """
    live = spread > _CONSTANT * spread.max(initial=0.0)
    if not live.any():
        return spread.copy(), np.zeros(spread.shape, dtype=bool)
    floor = FLOOR * float(np.median(spread[live]))
    return np.maximum(spread, floor), (spread > 0) & (spread < floor)
