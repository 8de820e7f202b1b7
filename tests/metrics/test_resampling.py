import numpy as np
from numpy.testing import assert_allclose

from steering_core.metrics import resampling
from steering_core.metrics.resampling import resampled_sums


def test_sums_are_those_of_what_is_drawn():
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 37))
    drawn = np.random.default_rng(3).integers(0, 37, (50, 37))
    sums = resampled_sums([one, other], seed=3, n_resamples=50)
    assert_allclose(sums, [one[drawn].sum(axis=1), other[drawn].sum(axis=1)], rtol=1e-12)


def test_samples_of_as_many_examples_share_the_draws(monkeypatch):
    resampling._kept.cache_clear()
    for seed, values in ((0, np.ones(20)), (0, np.arange(20.0)), (1, np.arange(20.0))):
        resampled_sums([values], seed=seed, n_resamples=10)
    assert resampling._kept.cache_info().misses == 2
    monkeypatch.setattr(resampling, "_KEPT", 199)  # too many to be kept: the same, drawn anew
    found = resampled_sums([np.arange(20.0)], seed=1, n_resamples=10)
    assert resampling._kept.cache_info().currsize == 2
    monkeypatch.undo()
    assert (found == resampled_sums([np.arange(20.0)], seed=1, n_resamples=10)).all()


def test_digits_do_not_depend_on_the_blocks(monkeypatch):
    values = np.random.default_rng(0).normal(size=101)
    monkeypatch.setattr(resampling, "_KEPT", 0)
    whole = resampled_sums([values], seed=0, n_resamples=23)
    for numbers in (1, 101, 250, 2**20):
        monkeypatch.setattr(resampling, "_AT_ONCE", numbers)
        assert (resampled_sums([values], seed=0, n_resamples=23) == whole).all()
