import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from steering_core.errors import DataError
from steering_core.statistics.paired import SuccessChanges, positions_after, success_changes

IDS = ["a", "b", "c", "d", "e"]


def test_examples_that_do_not_pair_up_are_an_error():
    with pytest.raises(DataError, match=r"1 only before \['b'\], 2 only after \['c', 'd'\]"):
        positions_after(["a", "b"], ["a", "c", "d"])
    with pytest.raises(DataError, match="'a' occurs more than once after"):
        positions_after(["a", "b"], ["a", "a"])
    with pytest.raises(DataError, match="more than once before"):
        positions_after([1, 1], [1, 2])
    with pytest.raises(ValueError, match="before has 2 examples and after 1"):
        success_changes([0, 0], [0])


def test_undefined_successes_are_an_error():
    with pytest.raises(ValueError, match="before must hold only"):
        success_changes([0.5], [1])
    with pytest.raises(ValueError, match="after must hold only"):
        success_changes([1], [None])


def test_changes_are_counted_by_id():
    before = [True, True, False, False, True]
    after = np.array([1, 0, 0, 1, 0])  # Of e, d, c, b, a.
    changes = success_changes(before, after[positions_after(IDS, IDS[::-1])])
    assert changes == SuccessChanges(negative=1, positive=0, kept_success=2, kept_failure=2)
    assert changes.side_effect_ratio == 1.0 and changes.n_changed == 1


def test_side_effect_ratio_and_its_interval():
    changes = SuccessChanges(negative=10, positive=30, kept_success=100, kept_failure=5)
    assert changes.side_effect_ratio == 0.25
    interval = changes.side_effect_interval(seed=0)
    assert interval.mean == 0.25 and interval.n == 40
    spread = 1.96 * np.sqrt(0.25 * 0.75 / 40)
    assert interval.low == pytest.approx(0.25 - spread, abs=0.03)
    assert interval.high == pytest.approx(0.25 + spread, abs=0.03)


def test_without_changes_the_ratio_is_undefined():
    same = SuccessChanges(negative=0, positive=0, kept_success=3, kept_failure=4)
    assert same.side_effect_ratio is None
    assert same.mcnemar_p_value == 1.0
    interval = same.side_effect_interval(seed=0)
    assert (interval.mean, interval.low, interval.n) == (None, None, 0)


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_is_the_exact_two_sided_binomial_test(negative, positive):
    changes = SuccessChanges(negative, positive, 7, 9)
    tail = binom.cdf(min(negative, positive), negative + positive, 0.5)
    assert changes.mcnemar_p_value == pytest.approx(min(1.0, 2 * tail))
    swapped = SuccessChanges(positive, negative, 7, 9)
    assert changes.mcnemar_p_value == pytest.approx(swapped.mcnemar_p_value)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=20), st.randoms())
def test_counts_do_not_depend_on_the_order_of_the_other_side(pairs, random):
    ids = list(range(len(pairs)))
    before, after = [p[0] for p in pairs], [p[1] for p in pairs]
    order = ids.copy()
    random.shuffle(order)
    straight = success_changes(before, after)
    shuffled = [after[i] for i in order]
    mixed = success_changes(before, [shuffled[i] for i in positions_after(ids, order)])
    assert straight == mixed
    assert straight.n_changed + straight.kept_success + straight.kept_failure == len(pairs)
