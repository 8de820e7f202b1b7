"""How sure a place on the frontier is, given the prompts there are."""

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

#: Digits that are compared: sums of the same numbers in another order are ties.
_DIGITS = 12
#: Comparisons held at once: bounds the memory, not the result.
_AT_ONCE = 20_000_000


def frontier_probability(
    texts: pd.DataFrame, *, seed: int = 0, n_resamples: int = 2000
) -> pd.DataFrame:
    """Return the share of resamples of the prompts in which each row is on the frontier.

    Every resample draws as many prompts as there are, with replacement, the same ones for all
    rows, and finds the frontier of mean KL and target rate anew. A row of which a resample holds
    no text is not on its frontier.

    Args:
        texts: a row per (``method``, ``strength_index``, ``example_id``): ``kl_sum``,
            ``n_tokens``, ``judged``; of the rows that compete, and of no others.
        seed: of the resampling.
        n_resamples: number of bootstrap samples.

    Returns:
        ``method``, ``strength_index``, ``frontier_probability``: a row per row that competes.

    """
    key = ["method", "strength_index"]
    made = texts[texts["n_tokens"] > 0]
    made = made.assign(kl=made["kl_sum"] / made["n_tokens"])
    kl, judged = (made.pivot(index=key, columns="example_id", values=v) for v in ("kl", "judged"))
    there = kl.notna().to_numpy()
    kl_of, judged_of = (np.where(there, frame.to_numpy(dtype=float), 0.0) for frame in (kl, judged))
    n = there.shape[1]
    drawn = np.random.default_rng(seed).integers(max(n, 1), size=(n_resamples, n))
    on = np.zeros(len(kl))
    for part in np.array_split(drawn, 1 + n_resamples * len(kl) ** 2 // _AT_ONCE):
        times = np.stack([np.bincount(row, minlength=n) for row in part]).astype(float)
        texts_in = times @ there.T
        with np.errstate(invalid="ignore"):
            cost, effect = (
                np.round((times @ values.T) / texts_in, _DIGITS) for values in (kl_of, judged_of)
            )
        on += _on_frontier(cost, effect).sum(axis=0)
    return kl.index.to_frame(index=False).assign(frontier_probability=on / n_resamples)


def _on_frontier(
    cost: Float[np.ndarray, "resamples n"], effect: Float[np.ndarray, "resamples n"]
) -> Bool[np.ndarray, "resamples n"]:
    """As :func:`steering_core.tables.frontier.non_dominated`, for every resample at once."""
    c, e = cost[:, :, None], effect[:, :, None]  # of the point that may dominate
    weakly = (c <= cost[:, None]) & (e >= effect[:, None])
    strictly = (c < cost[:, None]) | (e > effect[:, None])
    return ~(weakly & strictly).any(axis=1) & ~np.isnan(cost) & ~np.isnan(effect)
