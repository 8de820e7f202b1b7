"""Which points no other point beats: low cost, high effect."""

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float


def non_dominated(
    cost: Float[np.ndarray, " n"], effect: Float[np.ndarray, " n"]
) -> Bool[np.ndarray, " n"]:
    """Mark the points that no other point dominates.

    Point ``j`` dominates ``i`` if ``cost[j] <= cost[i]`` and ``effect[j] >= effect[i]``, one of
    them strictly. Equal points do not dominate each other, so both are kept. A point with a NaN
    is neither kept nor compared with. O(n log n).

    Args:
        cost: what is to be low, any unit.
        effect: what is to be high, any unit.

    Raises:
        ValueError: if the two are not one-dimensional and of one length.

    """
    cost, effect = np.asarray(cost, dtype=float), np.asarray(effect, dtype=float)
    if cost.ndim != 1 or cost.shape != effect.shape:
        raise ValueError(
            f"cost {cost.shape} and effect {effect.shape} must be vectors of one length."
        )
    kept = np.zeros(cost.shape, dtype=bool)
    known = np.flatnonzero(~(np.isnan(cost) | np.isnan(effect)))
    if known.size == 0:
        return kept
    order = known[np.lexsort((-effect[known], cost[known]))]
    ordered_cost, ordered_effect = cost[order], effect[order]
    # In this order the first point of a run of equal costs has the run's best effect.
    starts = np.searchsorted(ordered_cost, ordered_cost, side="left")
    best_so_far = np.maximum.accumulate(ordered_effect)
    # A run that starts the order has no cheaper point; -inf would hide an effect of -inf.
    beats_cheaper = (starts == 0) | (ordered_effect > best_so_far[starts - 1])
    kept[order] = beats_cheaper & (ordered_effect == ordered_effect[starts])
    return kept


def frontier_flags(df: pd.DataFrame) -> pd.Series:
    """Compute the ``on_frontier`` column of a pareto table: nullable booleans.

    A row is on the frontier if no other row of its experiment has ``kl_mean`` as low and
    ``classifier_rate_steered`` as high, one of them strictly better. A row without both is empty.
    """
    flags = pd.Series(pd.NA, index=df.index, dtype="boolean", name="on_frontier")
    for _, rows in df.groupby("experiment", sort=False):
        cost = rows["kl_mean"].to_numpy(dtype=float)
        effect = rows["classifier_rate_steered"].to_numpy(dtype=float)
        defined = ~(np.isnan(cost) | np.isnan(effect))
        flags.loc[rows.index[defined]] = non_dominated(cost, effect)[defined]
    return flags
