import numpy as np
import pytest

from steering_core.optimize.subspace import fit_subspace


def labelled(seed=0):
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1], 100)
    residuals = rng.standard_normal((200, 12)) * np.linspace(3, 1, 12)
    residuals[:, 4] += 8.0 * labels
    residuals[:, 9] -= 5.0 * labels
    return residuals, labels


def test_finds_and_orients_the_separating_directions():
    residuals, labels = labelled()
    found = fit_subspace(residuals, labels, k=2)
    # Class means differ along these two coordinates alone: what separates points there.
    apart = np.zeros(12)
    apart[4], apart[9] = 8.0, -5.0
    inside = found.directions.T @ (found.directions @ apart)
    assert np.linalg.norm(inside - apart) < 0.2 * np.linalg.norm(apart)
    assert found.directions[0, 4] > 0.7 and found.directions[0, 9] < -0.3
    scores = residuals @ found.directions.T
    assert (scores[labels == 1].mean(0) > scores[labels == 0].mean(0)).all()
    np.testing.assert_allclose(found.thresholds, scores[labels == 1].mean(0))
    np.testing.assert_allclose(found.directions @ found.directions.T, np.eye(2), atol=1e-12)
    assert (np.diff(found.separation) <= 0).all()


def test_other_target_turns_the_directions_round():
    residuals, labels = labelled()
    one, zero = (fit_subspace(residuals, labels, target=t, k=3) for t in (1, 0))
    np.testing.assert_allclose(one.directions, -zero.directions)


def test_residuals_of_another_width_are_named():
    found = fit_subspace(*labelled(), k=2)
    with pytest.raises(ValueError, match="residuals"):
        found.shortfall(np.ones((3, 11)))


def test_shortfall_is_zero_on_average_over_the_target_class():
    residuals, labels = labelled()
    found = fit_subspace(residuals, labels, k=3)
    np.testing.assert_allclose(found.shortfall(residuals[labels == 1]).mean(0), 0, atol=1e-12)
    assert (found.shortfall(residuals[labels == 0]).mean(0) > 0).all()


@pytest.mark.parametrize(
    ("labels", "options", "name"),
    [
        (np.zeros(200), {}, "labels"),
        (np.zeros(3), {}, "labels"),
        (None, {"k": 0}, "k must"),
        (None, {"k": 1.5}, "k must"),
        (None, {"n_components": "all"}, "n_components must"),
        (None, {"k": 13}, "fewer than k"),
        (None, {"target": 2}, "target"),
    ],
)
def test_bad_input_is_named(labels, options, name):
    residuals, good = labelled()
    with pytest.raises(ValueError, match=name):
        fit_subspace(residuals, good if labels is None else labels, **options)
