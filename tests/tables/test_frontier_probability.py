"""The frontier of resampled prompts against the plain one, resample by resample."""

import numpy as np
import pandas as pd

from steering_core.tables.frontier import non_dominated
from steering_core.tables.frontier_probability import frontier_probability


def texts(kl: np.ndarray, judged: np.ndarray) -> pd.DataFrame:
    rows, prompts = kl.shape
    return pd.DataFrame(
        {
            "method": np.repeat([f"m{i}" for i in range(rows)], prompts),
            "strength_index": 0,
            "example_id": np.tile([f"p{i:02d}" for i in range(prompts)], rows),
            "n_tokens": np.where(np.isnan(kl.ravel()), 0, 4),
            "kl_sum": 4 * kl.ravel(),
            "judged": judged.ravel(),
        }
    )


def test_equals_one_resample_after_another():
    rng = np.random.default_rng(0)
    kl = rng.exponential(np.arange(1, 7)[:, None], size=(6, 12))
    judged = (rng.random((6, 12)) < np.linspace(0.2, 0.9, 6)[:, None]).astype(float)
    kl[5], judged[5] = kl[0], judged[0]  # a tie: both are kept
    got = frontier_probability(texts(kl, judged), seed=4, n_resamples=300)
    drawn = np.random.default_rng(4).integers(12, size=(300, 12))
    expected = np.mean(
        [
            non_dominated(kl[:, d].mean(axis=1).round(12), judged[:, d].mean(axis=1).round(12))
            for d in drawn
        ],
        axis=0,
    )
    np.testing.assert_allclose(got["frontier_probability"], expected)
    assert ((expected > 0) & (expected < 1)).any()
    assert got["method"].tolist() == [f"m{i}" for i in range(6)]


def test_a_row_that_always_wins_and_one_that_never_does():
    kl = np.array([[0.1, 0.2, 0.1], [1.0, 2.0, 3.0]])
    judged = np.array([[1.0, 1.0, 1.0], [0.0, 1.0, 0.0]])
    got = frontier_probability(texts(kl, judged), n_resamples=50)
    assert got["frontier_probability"].tolist() == [1.0, 0.0]


def test_a_missing_text_is_left_out_of_the_means_and_no_text_is_no_number():
    kl = np.array([[0.1, np.nan], [0.2, 0.3]])
    got = frontier_probability(texts(kl, np.ones((2, 2))), seed=1, n_resamples=400)
    # The first row is beaten only where it has no text: both draws are of the second prompt.
    assert abs(got["frontier_probability"][0] - 0.75) < 0.08
    assert frontier_probability(texts(np.full((1, 2), np.nan), np.ones((1, 2)))).empty
