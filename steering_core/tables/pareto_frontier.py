"""The Pareto frontier: rows that no other row beats in effect and cost, with bootstrap support."""

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from steering_core.statistics.bootstrap import resampled_sums


def non_dominated(
    cost: Float[np.ndarray, " n"], effect: Float[np.ndarray, " n"]
) -> Bool[np.ndarray, " n"]:
    """Mark the points that no other point dominates.

    Point ``j`` dominates ``i`` if ``cost[j] <= cost[i]`` and ``effect[j] >= effect[i]``, one of
    them strictly. Equal points do not dominate each other, so both are kept. A point with a NaN is
    not kept and dominates no other. Takes O(n log n) time.

    Args:
        cost: values that should be low, in any unit.
        effect: values that should be high, in any unit.

    Raises:
        ValueError: if the arrays are not one-dimensional or differ in length.

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
    # Among points of equal cost, the first one in this order has the best effect.
    starts = np.searchsorted(ordered_cost, ordered_cost, side="left")
    best_so_far = np.maximum.accumulate(ordered_effect)
    # The first points have no cheaper point. Do not use -inf for its effect: an effect may be -inf.
    beats_cheaper = (starts == 0) | (ordered_effect > best_so_far[starts - 1])
    kept[order] = beats_cheaper & (ordered_effect == ordered_effect[starts])
    return kept


def frontier_flags(df: pd.DataFrame) -> pd.Series:
    """Compute the ``on_frontier`` column of a pareto table: nullable booleans.

    A row is on the frontier if no other row of its experiment has a ``kl_mean`` at most as high and
    a ``classifier_rate_steered`` at least as high, with one of them strictly better. The cell is
    empty if the row lacks one of these values.
    """
    flags = pd.Series(pd.NA, index=df.index, dtype="boolean", name="on_frontier")
    for _, rows in df.groupby("experiment", sort=False):
        cost = rows["kl_mean"].to_numpy(dtype=float)
        effect = rows["classifier_rate_steered"].to_numpy(dtype=float)
        defined = ~(np.isnan(cost) | np.isnan(effect))
        flags.loc[rows.index[defined]] = non_dominated(cost, effect)[defined]
    return flags


#: Decimal digits that are compared. Sums that differ only in their order are then ties.
_DIGITS = 12
#: Comparisons in memory at once. Limits the memory and does not change the result.
_AT_ONCE = 20_000_000


def frontier_probability(
    texts: pd.DataFrame, *, seed: int = 0, n_resamples: int = 2000
) -> pd.DataFrame:
    """Return the share of resamples of the prompts in which each row is on the frontier.

    Every resample draws as many prompts as there are, with replacement and the same for all rows,
    and computes the frontier of mean KL and target rate again. A row without a text in a resample
    is not on its frontier.

    Args:
        texts: a row per (``method``, ``strength_index``, ``example_id``): ``kl_sum``,
            ``n_tokens``, ``judged``. Only rows that compete may be included.
        seed: seed of the resampling.
        n_resamples: number of bootstrap samples.

    Returns:
        ``method``, ``strength_index``, ``frontier_probability``: one row per competing row.

    """
    key = ["method", "strength_index"]
    made = texts[texts["n_tokens"] > 0]
    made = made.assign(kl=made["kl_sum"] / made["n_tokens"])
    kl, judged = (made.pivot(index=key, columns="example_id", values=v) for v in ("kl", "judged"))
    # A text that the judge refuses to rate counts for the cost alone.
    there, rated = (frame.notna().to_numpy() for frame in (kl, judged))
    kl_of, judged_of = (frame.fillna(0.0).to_numpy(dtype=float) for frame in (kl, judged))
    on = np.zeros(len(kl))
    if there.size:
        samples = [*there.astype(float), *rated.astype(float), *kl_of, *judged_of]
        sums = resampled_sums(samples, seed=seed, n_resamples=n_resamples)
        texts_in, rated_in, cost, effect = np.split(sums.T, 4, axis=1)
        with np.errstate(invalid="ignore"):
            cost, effect = np.round(cost / texts_in, _DIGITS), np.round(effect / rated_in, _DIGITS)
        for part in np.array_split(np.arange(n_resamples), 1 + cost.size * len(kl) // _AT_ONCE):
            on += _on_frontier(cost[part], effect[part]).sum(axis=0)
    return kl.index.to_frame(index=False).assign(frontier_probability=on / n_resamples)


def _on_frontier(
    cost: Float[np.ndarray, "resamples n"], effect: Float[np.ndarray, "resamples n"]
) -> Bool[np.ndarray, "resamples n"]:
    """Do the same as :func:`non_dominated`, for every resample at once."""
    c, e = cost[:, :, None], effect[:, :, None]  # the point that may dominate
    weakly = (c <= cost[:, None]) & (e >= effect[:, None])
    strictly = (c < cost[:, None]) | (e > effect[:, None])
    return ~(weakly & strictly).any(axis=1) & ~np.isnan(cost) & ~np.isnan(effect)
