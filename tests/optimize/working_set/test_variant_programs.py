"""The variants order themselves as their constraints do; the concept subspace of one of them."""

import numpy as np
import pytest
from optimize_instances import unit_dictionary
from scipy import sparse

from steering_core.config.schema import VARIANTS
from steering_core.optimize.dictionary import Dictionary
from steering_core.optimize.path import SteeringPath
from steering_core.optimize.working_set.variants import VariantPrograms, fit_subspace

N, D_SAE, D_MODEL = 4, 120, 12
POINTS = [("qp", 1.0), ("socp", 2.6)]


@pytest.fixture(scope="module")
def programs():
    decoder, weight = unit_dictionary(D_SAE, D_MODEL)
    rng = np.random.default_rng(1)
    residuals = rng.standard_normal((N, D_MODEL))
    train = rng.standard_normal((80, D_MODEL))
    labels = (train @ weight > 0).astype(int)
    active = rng.exponential(size=(N, D_SAE)) * (rng.random((N, D_SAE)) < 0.2)
    dictionary = Dictionary(decoder)
    return VariantPrograms(
        path=SteeringPath.fit(dictionary, weight),
        dictionary=dictionary,
        residuals=residuals,
        shortfall=np.array([1.0, 2.0, 3.0, 4.0]),
        activations=sparse.csr_array(active),
        largest=np.where(np.arange(D_SAE) % 2 == 0, 0.6, 0.0),
        subspace=fit_subspace(train, labels, n_components=10, k=3),
        prefilter_features=4,
    )


@pytest.mark.parametrize(("program", "parameter"), POINTS)
def test_less_freedom_costs_more(programs, program, parameter):
    found = {name: programs.solve(name, program, parameter) for name in VARIANTS}
    for solved in found.values():
        assert set(solved.status) <= {"optimal", "infeasible"}
    plain = found["path"].objective
    assert np.isfinite(plain).all()
    assert (found["signed"].objective < plain * (1 + 1e-7)).all()
    assert (found["signed"].objective < plain * 0.999).any()
    for narrower in ("prefilter", "box"):
        solved = found[narrower].solved
        assert solved.any() and (found[narrower].status[~solved] == "infeasible").all()
        cost = found[narrower].objective[solved]
        assert (cost > plain[solved] * (1 - 1e-7)).all()
        assert (cost > plain[solved] * 1.001).any() or not solved.all()
    assert found["shared"].objective == pytest.approx(plain[-1:], rel=1e-6)


def test_each_keeps_to_its_own_constraints(programs):
    found = {name: programs.solve(name, "qp", 1.0) for name in VARIANTS}
    dense = {name: solved.delta.toarray() for name, solved in found.items()}
    active = programs.activations.toarray()
    gains = programs.dictionary.price(programs.path.weight)
    for name in set(VARIANTS) - {"subspace", "shared"}:
        np.testing.assert_allclose(dense[name] @ gains, programs.shortfall, rtol=1e-6)
    assert (dense["signed"] >= -active - 1e-9).all() and (dense["signed"] < 0).any()
    assert (dense["box"] <= 0.6 + 1e-9).all() and (dense["box"][:, 1::2] == 0).all()
    # Half of 4 by relevance, the same for all; the rest are active features.
    relevant = np.argsort(-np.abs(gains))[:2]
    outside = np.ones(D_SAE, dtype=bool)
    outside[relevant] = False
    assert (active[(dense["prefilter"] > 0) & outside] > 0).all()
    after = programs.residuals + found["subspace"].vector
    assert (programs.subspace.shortfall(after) <= 1e-6).all()
    assert len(found["shared"]) == 1


def test_unknown_names_are_named(programs):
    with pytest.raises(ValueError, match="variant: there is none called 'boxed'"):
        programs.solve("boxed", "qp", 1.0)
    with pytest.raises(ValueError, match="program must be"):
        programs.solve("path", "save", 1.0)


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
def test_bad_input_of_a_subspace_is_named(labels, options, name):
    residuals, good = labelled()
    with pytest.raises(ValueError, match=name):
        fit_subspace(residuals, good if labels is None else labels, **options)


def test_a_component_that_hardly_varies_is_not_the_most_separating():
    residuals, labels = labelled()
    rng = np.random.default_rng(1)
    tiny = 1e-4 * (labels + 0.01 * rng.standard_normal(200))
    found = fit_subspace(np.column_stack([residuals, 1000 + tiny]), labels, k=2)
    assert np.abs(found.directions[:, -1]).max() < 0.01
