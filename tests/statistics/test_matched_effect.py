"""Where a curve of effect against cost reaches a stated effect."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import isotonic_regression

from steering_core.statistics.bootstrap import mean_interval, resampled_sums
from steering_core.statistics.matched_effect import (
    EffectCurve,
    isotonic,
    open_interval,
    paired_ratio,
)

effects = arrays(float, st.tuples(st.integers(1, 6), st.integers(1, 3)), elements=st.floats(-1, 1))


def column(*values: float) -> np.ndarray:
    return np.array(values, dtype=float)[:, None]


@given(effects)
def test_the_fit_is_the_isotonic_regression_of_every_sample(values):
    expected = np.stack([isotonic_regression(sample).x for sample in values.T], axis=1)
    np.testing.assert_allclose(isotonic(values), expected, atol=1e-12)


def test_a_straight_line_in_the_root_of_kl_is_met_exactly():
    curve = EffectCurve.fit(column(0.01, 0.04, 0.16), column(0.1, 0.2, 0.4))
    place = curve.reaches(0.3)
    assert place.cost**2 == pytest.approx(0.09) and place.after == 3
    assert curve.between(place, column(1.0, 2.0, 4.0), np.zeros(1)) == pytest.approx(3.0)
    first = curve.reaches(0.05)  # between the unsteered point and the first
    assert first.cost == pytest.approx(0.05)
    assert curve.between(first, column(1.0, 2.0, 4.0), np.zeros(1)) == pytest.approx(0.5)
    # Without a value at the unsteered point, that of the first point holds.
    assert curve.between(first, column(7.0, 9.0, 9.0)) == pytest.approx(7.0)


def test_an_effect_that_is_never_reached_has_an_infinite_cost():
    curve = EffectCurve.fit(column(0.01, 0.04), column(0.1, 0.2))
    place = curve.reaches(0.21)
    assert np.isinf(place.cost) and not place.reached
    assert np.isnan(curve.between(place, column(1.0, 2.0)))
    assert EffectCurve.fit(column(0.01), column(-0.3)).effect[-1] == 0


def test_points_are_taken_in_order_of_cost_and_noise_is_smoothed():
    kl, effect = column(0.16, 0.01, 0.04), column(0.3, 0.1, 0.5)
    curve = EffectCurve.fit(kl, effect)
    assert curve.effect[:, 0] == pytest.approx([0, 0.1, 0.4, 0.4])
    place = curve.reaches(0.25)
    assert place.cost == pytest.approx(0.15)
    assert curve.between(place, column(16, 1, 4)) == pytest.approx(2.5)


@given(effects, st.floats(0.01, 0.9), st.integers(0, 2**32 - 1))
def test_the_effect_at_the_cost_that_reaches_it_is_the_effect(values, effect, seed):
    kl = np.random.default_rng(seed).uniform(0.001, 1, values.shape)
    curve = EffectCurve.fit(kl, values)
    place = curve.reaches(effect)
    cost = np.where(place.reached, place.cost, 10.0)
    within = curve.effect_within(cost)
    assert (within[place.reached] >= effect - 1e-9).all()
    assert (within[~place.reached] == curve.effect[-1][~place.reached]).all()
    # A lower cost has no larger effect, and a higher effect no lower cost.
    assert (curve.effect_within(0.5 * cost) <= within + 1e-12).all()
    assert (curve.reaches(effect + 0.05).cost >= place.cost).all()


@pytest.mark.parametrize(
    ("kl", "effect", "message"),
    [
        (column(0.1), column(0.1, 0.2), "same shape"),
        (np.zeros((0, 1)), np.zeros((0, 1)), "at least one point"),
        (column(np.nan), column(0.1), "finite"),
    ],
)
def test_curves_that_cannot_be_fitted_are_refused(kl, effect, message):
    with pytest.raises(ValueError, match=message):
        EffectCurve.fit(kl, effect)


def test_no_effect_is_not_an_effect_to_reach():
    with pytest.raises(ValueError, match="above 0"):
        EffectCurve.fit(column(0.1), column(0.1)).reaches(0.0)


def test_an_interval_without_an_end_says_so():
    low, high = open_interval(np.r_[np.arange(90.0), [np.inf] * 10])
    assert low == pytest.approx(2.475) and np.isnan(high)
    # One cannot interpolate to infinity: the end is the last resample before it.
    low, high = open_interval(np.r_[[-np.inf] * 3, np.arange(97.0)])
    assert np.isnan(low) and high == pytest.approx(93.525)
    assert np.isnan(open_interval(np.array([np.nan]))).all()
    assert np.isnan(open_interval(np.array([]))).all()


def test_a_finite_interval_is_that_of_every_other_table():
    values = np.random.default_rng(0).normal(size=50)
    drawn = resampled_sums([values], seed=3, n_resamples=500)[0] / values.size
    mean = mean_interval(values, seed=3, n_resamples=500)
    assert open_interval(drawn) == pytest.approx((mean.low, mean.high), abs=1e-12)


def test_a_resample_without_a_value_counts_against_both_ends():
    values = np.arange(1.0, 101.0)
    few, many = (np.r_[values, [np.nan] * n] for n in (1, 20))
    assert open_interval(few)[0] < open_interval(values)[0]
    assert open_interval(few)[1] > open_interval(values)[1]
    assert np.isnan(open_interval(many)).all()
    low, high = open_interval(many, lowest=0.0)
    assert low == 0.0 and np.isnan(high)


costs = st.lists(
    st.tuples(st.sampled_from([1.0, 2.0, np.inf]), st.sampled_from([1.0, 1.5, np.inf])),
    min_size=1,
    max_size=60,
)


@given(costs)
def test_a_ratio_is_on_one_side_of_1_in_nearly_all_resamples_if_its_interval_is(pairs):
    mine, theirs = np.array(pairs).T
    low, high = open_interval(paired_ratio(mine, theirs), lowest=0.0)
    needed = 0.975 * len(pairs) - 1
    if low > 1:
        assert (mine > theirs).sum() >= needed
    if high < 1:
        assert (mine < theirs).sum() >= needed


def test_an_effect_that_is_reached_exactly_is_reached():
    # 0.1 + 0.2 is more than 0.3 and 0.8 - 0.1 - 0.4 less, by a rounding error each.
    for effect in (0.1 + 0.2, 0.8 - 0.1 - 0.4):
        curve = EffectCurve.fit(column(0.01, 0.04, 0.09), column(0.1, 0.2, effect))
        place = curve.reaches(0.3)
        assert place.reached and place.cost == pytest.approx(0.3)
        assert (place.after, place.share) == (3, 1)
    assert not EffectCurve.fit(column(0.01), column(0.3 - 1e-6)).reaches(0.3).reached


def test_ratios_of_costs_that_may_be_infinite():
    found = paired_ratio(np.array([2, np.inf, 1, np.inf]), np.array([1, 1, np.inf, np.inf]))
    assert found[:3].tolist() == [2.0, np.inf, 0.0] and np.isnan(found[3])
