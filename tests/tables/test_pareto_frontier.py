"""The frontier of resampled prompts against the plain one, resample by resample."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steering_core.tables.pareto import frontier_flags, frontier_probability, non_dominated

# Few distinct values, so that ties are common.
values = st.one_of(
    st.sampled_from([0.0, 1.0, 2.0, float("nan"), float("inf"), float("-inf")]),
    st.floats(-5, 5),
)
points = st.lists(st.tuples(values, values), max_size=30)


def by_definition(cost: np.ndarray, effect: np.ndarray) -> np.ndarray:
    def dominates(j: int, i: int) -> bool:
        weakly = cost[j] <= cost[i] and effect[j] >= effect[i]
        return bool(weakly and (cost[j] < cost[i] or effect[j] > effect[i]))

    n = len(cost)
    known = ~(np.isnan(cost) | np.isnan(effect))
    return np.array(
        [known[i] and not any(dominates(j, i) for j in range(n) if known[j]) for i in range(n)],
        dtype=bool,
    )


@given(points)
def test_equals_the_definition(pairs: list[tuple[float, float]]) -> None:
    cost, effect = np.array(pairs, dtype=float).reshape(-1, 2).T
    np.testing.assert_array_equal(non_dominated(cost, effect), by_definition(cost, effect))


@given(points, st.randoms(use_true_random=False))
def test_order_of_rows_does_not_matter(pairs: list[tuple[float, float]], random: object) -> None:
    cost, effect = np.array(pairs, dtype=float).reshape(-1, 2).T
    order = np.arange(len(pairs))
    random.shuffle(order)
    expected = non_dominated(cost, effect)[order]
    np.testing.assert_array_equal(non_dominated(cost[order], effect[order]), expected)


def test_ties_are_both_kept_and_nan_never() -> None:
    kept = non_dominated(np.array([1, 1, 2, np.nan, 0.5]), np.array([3, 3, 3, 9, np.nan]))
    assert kept.tolist() == [True, True, False, False, False]


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match="one length"):
        non_dominated(np.zeros(3), np.zeros(2))


def test_flags_are_per_experiment_and_empty_where_undefined() -> None:
    df = pd.DataFrame(
        {
            "experiment": ["a", "a", "b", "a"],
            "kl_mean": [1.0, 2.0, 9.0, 0.1],
            "classifier_rate_steered": [0.5, 0.5, 0.1, np.nan],
        },
        index=[10, 11, 12, 13],
    )
    flags = frontier_flags(df)
    assert flags.loc[[10, 11, 12]].tolist() == [True, False, True]
    assert flags.isna().tolist() == [False, False, False, True]


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


def test_frontier_probability_is_one_for_a_dominating_row_and_zero_for_a_dominated_row():
    kl = np.array([[0.1, 0.2, 0.1], [1.0, 2.0, 3.0]])
    judged = np.array([[1.0, 1.0, 1.0], [0.0, 1.0, 0.0]])
    got = frontier_probability(texts(kl, judged), n_resamples=50)
    assert got["frontier_probability"].tolist() == [1.0, 0.0]


def test_a_text_without_a_verdict_counts_for_the_cost_alone():
    kl = np.array([[0.1, 0.3], [0.2, 0.2]])
    judged = np.array([[1.0, np.nan], [0.0, 1.0]])
    got = frontier_probability(texts(kl, judged), seed=1, n_resamples=400)
    # Both draws of the second prompt leave the first row without an effect: it is on no frontier.
    assert abs(got["frontier_probability"][0] - 0.75) < 0.08


def test_missing_texts_are_left_out_of_means_and_a_row_without_texts_has_no_probability():
    kl = np.array([[0.1, np.nan], [0.2, 0.3]])
    got = frontier_probability(texts(kl, np.ones((2, 2))), seed=1, n_resamples=400)
    # The first row is beaten only where it has no text: both draws are of the second prompt.
    assert abs(got["frontier_probability"][0] - 0.75) < 0.08
    assert frontier_probability(texts(np.full((1, 2), np.nan), np.ones((1, 2)))).empty
