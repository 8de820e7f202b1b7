import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from steering_core.statistics.spread import floored_spread


def test_only_standard_deviations_below_the_floor_are_changed():
    spread = np.array([1.0, 2.0, 3.0, 0.19, 1e-3, 0.0])
    found, floored = floored_spread(spread)
    assert_array_equal(found, [1.0, 2.0, 3.0, 0.19, 0.1, 0.1])  # the median of five is 1
    assert_array_equal(floored, [False, False, False, False, True, False])


def test_constant_columns_do_not_count_for_the_median():
    spread = np.array([1.0, 1.0, 1e-3, *[0.0] * 20, *[1e-9] * 20])
    found, floored = floored_spread(spread)
    assert (found[2:] == 0.1).all() and floored.sum() == 21
    assert_array_equal(floored_spread(np.zeros(3))[0], np.zeros(3))
    assert floored_spread(np.zeros(0))[0].size == 0


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=12), st.floats(1e-3, 1e3))
def test_the_floor_scales_with_the_columns(spread, factor):
    found, _ = floored_spread(np.array(spread))
    scaled, _ = floored_spread(factor * np.array(spread))
    np.testing.assert_allclose(scaled, factor * found, rtol=1e-12)
    assert (found >= spread).all()
