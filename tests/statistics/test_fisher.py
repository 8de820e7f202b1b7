"""Sums of the Fisher information: a mean over texts, mergeable, with its standard error."""

import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf

from steering_core.errors import DataError
from steering_core.statistics.fisher import Fisher, FisherSums

D = 5
SPREAD = np.array([4.0, 2.0, 1.0, 0.5, 0.1])


def gradients(texts: int, samples: int = 1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((texts, samples, D)) * SPREAD


def sums(rows: np.ndarray, tokens: int = 1) -> FisherSums:
    found = FisherSums.empty(D)
    for row in rows:
        found.add(row, tokens)
    return found


def test_it_is_the_mean_outer_product_per_token():
    rows = gradients(40, samples=3)
    found = sums(rows, tokens=8).fisher(shrinkage=1e-9)
    expected = np.einsum("tsi,tsj->ij", rows, rows) / (40 * 3 * 8)
    np.testing.assert_allclose(found.matrix, expected, rtol=1e-6, atol=1e-8)
    assert (found.texts, found.tokens) == (40, 320)


def test_sums_of_parts_are_the_sums_of_the_whole():
    rows = gradients(30, samples=2)
    whole, parts = sums(rows, 4), sums(rows[:14], 4).merge(sums(rows[14:], 4))
    for name, value in vars(whole.fisher()).items():
        np.testing.assert_allclose(getattr(parts.fisher(), name), value, err_msg=name)


def test_the_shrinkage_is_that_of_ledoit_and_wolf():
    rows = gradients(60)[:, 0]
    matrix, shrinkage = ledoit_wolf(rows, assume_centered=True)
    found = sums(rows[:, None]).fisher()
    assert found.shrinkage == pytest.approx(shrinkage)
    np.testing.assert_allclose(found.matrix, matrix)
    fixed = sums(rows[:, None]).fisher(0.5)
    assert fixed.shrinkage == 0.5 and np.trace(fixed.matrix) == pytest.approx(np.trace(matrix))


def test_the_standard_error_is_the_spread_of_repeated_estimates():
    estimates = [sums(gradients(50, seed=seed)).fisher(1e-9) for seed in range(300)]
    truth = np.diag(SPREAD**2)
    apart = [np.linalg.norm(one.matrix - truth) ** 2 for one in estimates]
    size = np.linalg.norm(truth)
    stated = np.mean([(one.relative_error * np.linalg.norm(one.matrix)) ** 2 for one in estimates])
    assert np.sqrt(stated) / size == pytest.approx(np.sqrt(np.mean(apart)) / size, rel=0.1)
    traces = [one.trace for one in estimates]
    errors = [one.trace * one.trace_error for one in estimates]
    assert np.mean(errors) == pytest.approx(np.std(traces), rel=0.2)
    halves = np.mean([one.half_difference**2 for one in estimates])
    assert np.sqrt(halves) == pytest.approx(np.sqrt(np.mean(apart)) / size, rel=0.2)


def test_more_draws_of_a_text_make_the_estimate_better():
    errors = [sums(gradients(100, samples)).fisher().relative_error for samples in (1, 8)]
    assert errors[1] < 0.6 * errors[0]


def test_metric_and_costs_are_on_the_scale_of_the_plain_ones(tmp_path):
    found = sums(gradients(60)).fisher()
    assert np.trace(found.metric) == pytest.approx(D)
    decoder = np.random.default_rng(1).standard_normal((7, D))
    decoder[3] = 0.0
    cost = found.feature_cost(decoder)
    live = np.arange(7) != 3
    assert cost[live].mean() == pytest.approx(1.0) and cost[3] == 1.0
    np.testing.assert_allclose(
        (cost[live] / cost[0]) ** 2, found.kl(decoder[live]) / found.kl(decoder[:1])
    )
    found.save(tmp_path / "fisher")
    back = Fisher.load(tmp_path / "fisher")
    assert np.array_equal(back.matrix, found.matrix) and back.report() == found.report()


def test_what_cannot_be_estimated_is_refused():
    with pytest.raises(DataError, match="3 texts are too few"):
        sums(gradients(3)).fisher()
    with pytest.raises(DataError, match="changes the model's predictions"):
        sums(np.zeros((8, 1, D))).fisher()
