import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import stats

from steering_core.statistics import bootstrap
from steering_core.statistics.bootstrap import (
    Interval,
    change_interval,
    mean_interval,
    perplexity_interval,
    ratio_interval,
    resampled_sums,
    share_interval,
)


def test_interval_of_a_mean_has_the_width_of_the_normal_theory():
    values = np.random.default_rng(0).normal(3.0, 2.0, 400)
    interval = mean_interval(values, seed=1, n_resamples=4000)
    assert interval.mean == pytest.approx(values.mean()) and interval.n == 400
    half = 1.96 * values.std() / 20
    assert_allclose(
        [interval.low, interval.high], interval.mean + np.array([-half, half]), atol=0.03
    )


def test_coverage_is_near_the_confidence():
    rng = np.random.default_rng(0)
    for confidence in (0.5, 0.95):
        hits = 0
        for seed in range(200):
            drawn = mean_interval(
                rng.normal(1.0, 1.0, 50), seed=seed, confidence=confidence, n_resamples=300
            )
            hits += drawn.low <= 1.0 <= drawn.high
        assert abs(hits / 200 - confidence) < 0.1


def test_seed_decides_the_interval_and_batching_does_not(monkeypatch):
    values = np.random.default_rng(0).exponential(size=100)
    one = mean_interval(values, seed=1)
    assert one == mean_interval(values, seed=1)
    assert one != mean_interval(values, seed=2)
    monkeypatch.setattr(bootstrap, "_AT_ONCE", 700)
    monkeypatch.setattr(bootstrap, "_KEPT", 0)  # no draws of before
    assert one == mean_interval(values, seed=1)


@pytest.mark.parametrize("n", [2, 30, 401])
def test_intervals_are_those_of_scipy(n):
    rng = np.random.default_rng(n)
    above, below = rng.normal(3.0, 2.0, n), rng.integers(1, 9, n).astype(float)

    def expected(samples, statistic, confidence):
        interval = stats.bootstrap(
            samples, statistic, paired=True, method="percentile", vectorized=True,
            n_resamples=500, confidence_level=confidence, rng=np.random.default_rng(7),
        ).confidence_interval  # fmt: skip
        return [interval.low, interval.high]

    def ratio(a, b, axis):
        return a.sum(axis=axis) / b.sum(axis=axis)

    for confidence in (0.5, 0.95):
        how = {"seed": 7, "n_resamples": 500, "confidence": confidence}
        mean, share = mean_interval(above, **how), ratio_interval(above, below, **how)
        assert_allclose([mean.low, mean.high], expected((above,), np.mean, confidence), rtol=1e-12)
        of_both = expected((above, below), ratio, confidence)
        assert_allclose([share.low, share.high], of_both, rtol=1e-12)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30))
def test_interval_lies_within_the_values_around_the_mean(values):
    interval = mean_interval(values, seed=0, n_resamples=100)
    slack = 1e-9 * max(1.0, max(map(abs, values)))
    assert min(values) - slack <= interval.low <= interval.high <= max(values) + slack
    assert interval.n == len(values)


def test_no_values_give_no_interval_and_a_single_value_gives_zero_width():
    assert mean_interval([], seed=0) == Interval(None, None, None, 0)
    assert mean_interval([2.5], seed=0) == Interval(2.5, 2.5, 2.5, 1)
    assert mean_interval([0.1] * 7, seed=0) == Interval(0.1, 0.1, 0.1, 7)


def test_undefined_values_are_never_dropped_silently():
    values = [1.0, None, float("nan"), 3.0]
    with pytest.raises(ValueError, match="values has 2 NaN of 4"):
        mean_interval(values, seed=0)
    skipped = mean_interval(values, seed=0, skip_undefined=True)
    assert skipped == mean_interval([1.0, 3.0], seed=0) and skipped.n == 2
    empty = mean_interval([None, None], seed=0, skip_undefined=True)
    assert empty == Interval(None, None, None, 0)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="infinity"):
        mean_interval([1.0, np.inf], seed=0)
    with pytest.raises(ValueError, match="confidence"):
        mean_interval([1.0], seed=0, confidence=95)
    with pytest.raises(ValueError, match="n_resamples"):
        mean_interval([1.0], seed=0, n_resamples=0)
    with pytest.raises(ValueError, match="one dimension"):
        mean_interval([[1.0]], seed=0)


def test_perplexity_weights_by_tokens_and_resamples_texts():
    nll, tokens = np.array([10.0, 90.0, 4.0]), np.array([10, 30, 2])
    interval = perplexity_interval(nll, tokens, seed=0)
    assert interval.mean == pytest.approx(math.exp(104 / 42)) and interval.n == 3
    # No resample of texts lies outside the extreme single texts, which do occur.
    assert interval.low == pytest.approx(math.exp(1.0))
    assert interval.high == pytest.approx(math.exp(3.0))


def test_texts_are_clusters():
    """Repeating the tokens of each text must not narrow the interval."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(5, 20, 40)
    nll = tokens * rng.normal(2.0, 0.5, 40)
    once = perplexity_interval(nll, tokens, seed=0)
    longer = perplexity_interval(10 * nll, 10 * tokens, seed=0)
    assert_allclose([once.low, once.high], [longer.low, longer.high])
    assert once.high - once.low > 0.5


def test_texts_without_tokens_are_left_out():
    with_empty = perplexity_interval([4.0, 0.0, 9.0], [2, 0, 3], seed=0)
    assert with_empty == perplexity_interval([4.0, 9.0], [2, 3], seed=0)
    assert perplexity_interval([0.0], [0], seed=0) == Interval(None, None, None, 0)
    assert perplexity_interval([4.0], [2], seed=0).low == pytest.approx(math.exp(2))


def test_bad_ratios_are_named():
    with pytest.raises(ValueError, match="differ in length"):
        ratio_interval([1.0], [1.0, 2.0], seed=0)
    with pytest.raises(ValueError, match="numerators contains NaN"):
        ratio_interval([np.nan], [1.0], seed=0)
    with pytest.raises(ValueError, match="negative"):
        ratio_interval([1.0], [-1.0], seed=0)
    with pytest.raises(ValueError, match="non-zero number where denominators is zero"):
        ratio_interval([1.0, 1.0], [0.0, 1.0], seed=0)


def test_a_share_of_all_or_none_has_the_exact_interval():
    none = share_interval([0, 0, 0, 0, 0], [1, 1, 2, 1, 0], seed=0)
    assert (none.mean, none.low, none.n) == (0.0, 0.0, 4)
    assert none.high == pytest.approx(1 - 0.025 ** (1 / 4))
    every = share_interval([1, 1], [1, 1], seed=0)
    assert (every.mean, every.high) == (1.0, 1.0) and every.low == pytest.approx(0.025**0.5)
    assert share_interval([], [], seed=0) == Interval(None, None, None, 0)
    half = share_interval([1, 1, 2], [2, 2, 4], seed=0)  # others may be all hits, or none
    seen = 0.025 ** (1 / 3)
    assert (half.low, half.high) == pytest.approx((0.5 * seen, 1 - 0.5 * seen))
    mixed = [1, 0, 1, 1], [1, 1, 1, 1]
    assert share_interval(*mixed, seed=0) == ratio_interval(*mixed, seed=0)
    with pytest.raises(ValueError, match="between 0 and trials"):
        share_interval([2.0], [1.0], seed=0)


def test_no_change_of_a_few_examples_is_not_sure_to_be_none():
    none = change_interval([0, 0, 0, 0], [1, 1, 2, 1], seed=0)
    high = 1 - 0.025 ** (1 / 4)
    assert (none.mean, none.n) == (0.0, 4)
    assert (none.low, none.high) == pytest.approx((-high, high))
    for sign in (1, -1):
        every = change_interval([sign, 2 * sign], [1, 2], seed=0)
        ends = sorted((sign * (2 * 0.025**0.5 - 1), sign))
        assert every.mean == sign and (every.low, every.high) == pytest.approx(tuple(ends))
    assert change_interval([], [], seed=0) == Interval(None, None, None, 0)
    for changes in ([1, 0, -1, 0, 0], [1, -1, 0, 0, 0]):
        whole = np.ones(5)
        assert change_interval(changes, whole, seed=0) == ratio_interval(changes, whole, seed=0)
    half, seen = change_interval([0.5, 0.5], [1, 1], seed=0), 0.025**0.5  # of several draws
    assert half.low == pytest.approx(0.5 * seen - (1 - seen))
    assert half.high == pytest.approx(0.5 * seen + (1 - seen))
    thirds = change_interval([0.1 + 0.2, 0.3, 0.3], [1, 1, 1], seed=0)  # equal but for rounding
    assert thirds.low == pytest.approx(0.3 - 1.3 * (1 - 0.025 ** (1 / 3)))
    with pytest.raises(ValueError, match="between -trials and trials"):
        change_interval([-2.0], [1.0], seed=0)


@pytest.mark.parametrize("size", [1.0, 0.5])
def test_chance_alone_is_not_called_a_change(size):
    # Each example changes for the better or the worse as a coin falls, so the true change is 0.
    for n in range(1, 7):
        signs = itertools.product((-size, size), repeat=n)
        found = [change_interval(one, np.ones(n), seed=0, n_resamples=500) for one in signs]
        assert np.mean([one.low > 0 or one.high < 0 for one in found]) <= 0.05
    # The same true change in fewer and fewer of many examples that agree.
    assert change_interval(np.full(40, size), np.ones(40), seed=0).low > 0


def test_a_share_that_all_examples_have_is_covered():
    # Nine of ten examples have half of their trials right, the tenth all: the mean is 0.55.
    rng = np.random.default_rng(0)
    shares = np.where(rng.random((400, 5)) < 0.9, 0.5, 1.0)
    found = [share_interval(one, np.ones(5), seed=0, n_resamples=200) for one in shares]
    assert np.mean([one.low <= 0.55 <= one.high for one in found]) >= 0.9


def test_sums_are_over_the_drawn_examples():
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 37))
    drawn = np.random.default_rng(3).integers(0, 37, (50, 37))
    sums = resampled_sums([one, other], seed=3, n_resamples=50)
    assert_allclose(sums, [one[drawn].sum(axis=1), other[drawn].sum(axis=1)], rtol=1e-12)


def test_samples_of_as_many_examples_share_the_draws(monkeypatch):
    bootstrap._kept.cache_clear()
    for seed, values in ((0, np.ones(20)), (0, np.arange(20.0)), (1, np.arange(20.0))):
        resampled_sums([values], seed=seed, n_resamples=10)
    assert bootstrap._kept.cache_info().misses == 2
    monkeypatch.setattr(bootstrap, "_KEPT", 199)  # too many to be kept: the same, drawn anew
    found = resampled_sums([np.arange(20.0)], seed=1, n_resamples=10)
    assert bootstrap._kept.cache_info().currsize == 2
    monkeypatch.undo()
    assert (found == resampled_sums([np.arange(20.0)], seed=1, n_resamples=10)).all()


def test_digits_do_not_depend_on_the_blocks(monkeypatch):
    values = np.random.default_rng(0).normal(size=101)
    monkeypatch.setattr(bootstrap, "_KEPT", 0)
    whole = resampled_sums([values], seed=0, n_resamples=23)
    for numbers in (1, 101, 250, 2**20):
        monkeypatch.setattr(bootstrap, "_AT_ONCE", numbers)
        assert (resampled_sums([values], seed=0, n_resamples=23) == whole).all()
