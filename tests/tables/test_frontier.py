import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steering_core.tables.frontier import frontier_flags, non_dominated

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
