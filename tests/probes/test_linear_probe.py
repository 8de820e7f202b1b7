import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from steering_core.errors import StorageError
from steering_core.probes.linear_probe import LinearProbe, floored_spread
from steering_core.storage.arrays import save_arrays


@pytest.fixture
def probe():
    return LinearProbe(
        weight_vector=np.array([1.0, -2.0, 0.5]),
        bias=0.25,
        classes=(0, 1),
        regularisation=0.1,
        accuracy=0.9,
        fold_scores=(0.8, 1.0),
        p_value=1e-4,
        at_chance=False,
        n_train=20,
    )


ROWS = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, -0.5]])


def test_decision_is_the_affine_function(probe):
    assert_allclose(probe.decision(ROWS), [1.25, -1.75, 0.0])
    assert_array_equal(probe.predict(ROWS), [1, 0, 0])
    assert_allclose(probe.decision(ROWS.astype(np.float32)), [1.25, -1.75, 0.0])


@pytest.mark.parametrize("shape", [(3,), (2, 4)])
def test_rows_of_another_model_are_refused(probe, shape):
    with pytest.raises(ValueError, match=r"h must be \(n, 3\)"):
        probe.decision(np.zeros(shape))


def test_orientation_negates_logits_and_keeps_predictions(probe):
    assert probe.oriented(1) is probe
    turned = probe.oriented(0)
    assert_array_equal(turned.decision(ROWS), -probe.decision(ROWS))
    nonzero = probe.decision(ROWS) != 0
    assert_array_equal(turned.predict(ROWS)[nonzero], probe.predict(ROWS)[nonzero])
    assert turned.oriented(0) is turned
    assert_array_equal(turned.oriented(1).weight_vector, probe.weight_vector)
    with pytest.raises(ValueError, match="target_class must be one of"):
        probe.oriented(2)


def test_storage_keeps_every_field(probe, tmp_path):
    path = tmp_path / "probe.safetensors"
    probe.save(path)
    again = LinearProbe.load(path)
    for field in dataclasses.fields(LinearProbe):
        expected, got = getattr(probe, field.name), getattr(again, field.name)
        assert_array_equal(got, expected)
        assert type(got) is type(expected), field.name


def test_another_file_is_refused(tmp_path):
    save_arrays(tmp_path / "other.safetensors", {"weight_vector": np.zeros(2)})
    with pytest.raises(StorageError, match="holds no probe"):
        LinearProbe.load(tmp_path / "other.safetensors")
    with pytest.raises(StorageError, match="does not exist"):
        LinearProbe.load(tmp_path / "absent.safetensors")


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
