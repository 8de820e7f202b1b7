"""Declared programs on CorrSteer's tasks: every direction, metric, cost and mode."""

from dataclasses import replace

import cvxpy as cp
import numpy as np
import pytest
import torch
from corrsteer_world import CAUSE, SITE, session_of, training_data_of_one_cause, word_rows

from steering_core.config.corrsteer_schema import SparseMethods
from steering_core.config.schema import FisherSettings
from steering_core.corrsteer.answers import Decoding
from steering_core.corrsteer.sparse_methods import strengths
from steering_core.corrsteer.training_data import fisher_of_answers, gradient_of_answers
from steering_core.errors import DataError
from steering_core.methods.declared_programs import covariance_metric, oriented_logit
from steering_core.models.head import final_hidden, logits_of
from steering_core.models.residual_stream import edit_residual
from steering_core.models.tokens import pad, tokenize
from steering_core.probes.fit import fit_probe
from steering_core.statistics.fisher import Fisher, FisherSums

DIRECTIONS = ["probe", "mean_difference", "contrastive", "repe", "likelihood_gradient"]
SEVERAL = ["mean_difference", "likelihood_gradient"]
METRICS = ["identity", "covariance", "fisher"]
PROGRAMS = {
    "qp": {"program": "qp", "qp_lambda": [0.5]},
    "socp": {"program": "socp", "epsilon": [100.0]},
    "dense": {"program": "dense"},
}
TEST = np.random.default_rng(1).standard_normal((20, 12))
HOW = Decoding(new_tokens=2, batch_rows=8)


def fisher() -> Fisher:
    """An estimate in which some directions cost the output a hundred times as much as others."""
    rng, sums = np.random.default_rng(3), FisherSums.empty(12)
    for row in rng.standard_normal((200, 2, 12)) * np.geomspace(1, 10, 12):
        sums.add(row, 24)
    return sums.fisher()


@pytest.fixture(scope="module")
def data():
    """With a likelihood gradient that leans to the cause."""
    plain = training_data_of_one_cause()
    gradient = 0.1 * plain.dictionary[CAUSE] + 0.03 * plain.dictionary[7]
    return replace(plain, gradient=lambda: gradient, fisher=fisher)


def strengths_of(data, *, units="absolute", **declared):
    settings = SparseMethods(methods=[], units=units, features=30, programs={"mine": declared})
    return strengths("mine", settings, data)


def logits_of_directions(data, directions):
    """Weights and biases of the calibrated logits, in the order of the directions."""
    probe = None
    if "probe" in directions:
        probe = fit_probe(data.residuals, data.success, seed=0)
    rows = data.fit_data(directions)
    found = [oriented_logit(one, probe, rows) for one in directions]
    return np.stack([w for w, _ in found]), np.array([b for _, b in found])


def added_to(strength, residuals=TEST):
    """What a strength adds to each row; of an adaptive one, at the residual itself."""
    steered = strength.steer(residuals)
    assert steered.reason == [""] * len(residuals)
    (what,) = steered.intervention.at.values()
    if steered.intervention.is_adaptive:
        h = torch.tensor(residuals, dtype=torch.float64)
        return (what.start().at(torch.arange(len(h)), h) - h).numpy()
    return np.broadcast_to(what.vectors, residuals.shape)


@pytest.mark.parametrize("direction", [*DIRECTIONS, SEVERAL], ids=str)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("program", PROGRAMS)
def test_every_vector_has_its_margin_on_the_calibrated_logit(data, direction, metric, program):
    directions = direction if isinstance(direction, list) else [direction]
    weights, biases = logits_of_directions(data, directions)
    declared = {**PROGRAMS[program], "concept_direction": direction, "metric": metric}
    logits = TEST @ weights.T + biases
    shared = (data.shared_by @ weights.T + biases).min(axis=0)
    asked = {"uniform": 1.0 + 0 * logits, "static": 1.0 - logits, "shared": 1.0 - shared}
    if program != "dense":
        asked["adaptive"] = asked["static"]
    for mode, shortfall in asked.items():
        [strength] = strengths_of(data, mode=mode, tau=[1.0], **declared)
        added = added_to(strength)
        moved, shortfall = added @ weights.T, np.broadcast_to(shortfall, logits.shape)
        steered = shortfall.max(axis=1) > 0
        assert steered.any() and not added[~steered].any()
        # Each margin is met, and one of them exactly.
        missed = (shortfall - moved)[steered].max(axis=1)
        np.testing.assert_allclose(missed, 0.0, atol=1e-4 if mode == "adaptive" else 1e-6)
        if mode in ("uniform", "shared"):
            assert (added == added[0]).all()
        used = strength.steer(TEST).n_features
        if program == "dense" or mode == "adaptive":
            assert used is None
        else:
            assert (used[steered] > 0).all() and used.dtype == np.int64


@pytest.mark.parametrize("direction", ["mean_difference", SEVERAL], ids=str)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("feature_cost", ["unit", "fisher"])
def test_a_vector_is_that_of_a_solver_without_a_path(data, direction, metric, feature_cost):
    weights, _ = logits_of_directions(
        data, direction if isinstance(direction, list) else [direction]
    )
    labels = data.success.astype(int)
    square = {
        "identity": np.eye(12),
        "covariance": covariance_metric(data.residuals, labels),
        "fisher": fisher().metric,
    }[metric]
    rows = data.dictionary
    cost = np.ones(30) if feature_cost == "unit" else fisher().feature_cost(rows)
    delta = cp.Variable(30, nonneg=True)
    vector = rows.T @ delta
    price = cost @ delta + 0.25 * cp.quad_form(vector, cp.psd_wrap(square))
    cp.Problem(cp.Minimize(price), [weights @ vector >= 2.0]).solve(solver=cp.CLARABEL)
    declared = {"concept_direction": direction, "metric": metric, "feature_cost": feature_cost}
    [strength] = strengths_of(data, mode="uniform", tau=[2.0], **PROGRAMS["qp"], **declared)
    np.testing.assert_allclose(added_to(strength)[0], vector.value, atol=1e-4)


def test_the_strengths_say_what_was_configured(data):
    named = {
        "tau 1, lambda 3": {"program": "qp", "qp_lambda": [3.0]},
        "tau 1, epsilon 30": {"program": "socp", "epsilon": [30.0]},
        "tau 1": {"program": "dense"},
        "tau 1, features 4": {"program": "qp", "features": [4]},
    }
    for name, declared in named.items():
        (one, other) = strengths_of(data, mode="uniform", tau=[1.0, 2.0], **declared)
        assert one.name == name and other.name == name.replace("tau 1", "tau 2")
        if "features" in declared:
            assert (one.steer(TEST).n_features == 4).all()


def test_units_of_the_model_are_the_typical_logit_of_each_direction(data):
    weights, biases = logits_of_directions(data, SEVERAL)
    typical = np.median(np.abs(data.shared_by @ weights.T + biases), axis=0)
    shared = {**PROGRAMS["dense"], "mode": "uniform", "concept_direction": SEVERAL, "tau": [2.0]}
    [strength] = strengths_of(data, units="model", **shared)
    assert strength.name == "tau 2 in units of the model"
    moved = added_to(strength)[0] @ weights.T
    assert (moved / typical).min() == pytest.approx(2.0)


@pytest.mark.parametrize("method", ["qp_optimal", "convex_optimal"])
@pytest.mark.parametrize("direction", ["likelihood_gradient", ["probe", "repe"]], ids=str)
def test_the_registered_programs_take_every_direction_too(data, method, direction):
    directions = direction if isinstance(direction, list) else [direction]
    weights, biases = logits_of_directions(data, directions)
    settings = SparseMethods(tau=[1.0], epsilon=[30.0], concept_direction=direction)
    [strength] = strengths(method, settings, data)
    shortfall = 1.0 - (TEST @ weights.T + biases)
    steered = shortfall.max(axis=1) > 0
    missed = (shortfall - added_to(strength) @ weights.T)[steered].max(axis=1)
    np.testing.assert_allclose(missed, 0.0, atol=1e-6)


def test_guards_are_of_the_training_residuals(data):
    declared = {**PROGRAMS["qp"], "mode": "uniform", "concept_direction": "contrastive"}
    guards = [{"direction": "principal_components", "count": 2, "kappa": 0.1}]
    [free] = strengths_of(data, tau=[2.0], **declared)
    [held] = strengths_of(data, tau=[2.0], guards=guards, **declared)
    centred = data.residuals - data.residuals.mean(axis=0)
    components = np.linalg.svd(centred, full_matrices=False)[2][:2]
    spread = (centred @ components.T).std(axis=0)
    moved = {
        name: np.abs(added_to(one)[0] @ components.T) / spread
        for name, one in {"free": free, "held": held}.items()
    }
    assert moved["free"].max() > 0.1 and moved["held"].max() <= 0.1 + 1e-6


def test_what_cannot_be_learned_is_an_error_with_the_cause(data):
    always = replace(data, success=np.ones_like(data.success))
    plain = {**PROGRAMS["qp"], "tau": [1.0]}
    for direction in ("likelihood_gradient", SEVERAL):
        with pytest.raises(DataError, match="one outcome only"):
            strengths_of(always, concept_direction=direction, **plain)
    away = replace(data, gradient=lambda: -data.gradient())
    with pytest.raises(DataError, match="likelihood_gradient points away"):
        strengths_of(away, concept_direction="likelihood_gradient", **plain)
    for given in ({"metric": "fisher"}, {"feature_cost": "fisher"}):
        with pytest.raises(ValueError, match="fisher: a program needs"):
            strengths_of(training_data_of_one_cause(), **plain, **given)
    axis = np.sign(data.dictionary[CAUSE]) * np.eye(12)[0]
    still = replace(data, residuals=np.where(data.success, 1.0, -1.0)[:, None] * axis)
    with pytest.raises(DataError, match="no program: residuals do not vary within a class"):
        strengths_of(still, concept_direction="contrastive", metric="covariance", **plain)
    [weight] = logits_of_directions(data, ["contrastive"])[0]
    against = -np.sign(data.dictionary @ weight)[:, None] * data.dictionary
    counted = {"program": "qp", "mode": "uniform", "tau": [1.0], "features": [2]}
    with pytest.raises(DataError, match="no program: features: no vector of 2 features raises"):
        strengths_of(replace(data, dictionary=against), concept_direction="contrastive", **counted)


def test_the_likelihood_gradient_is_the_slope_of_right_against_wrong_answers(tiny):
    rows = word_rows(5)
    rows["worked"], rows["letters"] = ["w1 w2", "w3", "w1 w2", "w3", "w3"], [["w1 w2", "w3"]] * 5
    vector = gradient_of_answers(session_of(tiny, HOW), rows, SITE, seed=0)
    direction = np.random.default_rng(0).standard_normal(32)
    direction /= np.linalg.norm(direction)

    def mean_log_p(prompt, answer, step):
        (front,), (back,) = (
            tokenize(tiny.tokenizer, [text], prepend_bos=bos)
            for text, bos in ((prompt, True), (f" {answer}", False))
        )
        batch = pad([[*front, *back]], tiny.tokenizer, side="right", prepend_bos=True)
        added = torch.zeros(1, batch.ids.shape[1], 32)
        added[0, len(front) - 1] = torch.tensor(step * direction)
        with edit_residual(tiny, SITE, lambda residual: residual + added):
            hidden = final_hidden(tiny, batch.ids, batch.mask)[0]
        predicting = hidden[len(front) - 1 : len(front) + len(back) - 1]
        log_p = logits_of(tiny, predicting).double().log_softmax(dim=-1)
        return float(log_p.gather(1, torch.tensor(back)[:, None]).mean())

    def slope(prompt, answer):
        up, down = (mean_log_p(prompt, answer, step) for step in (1e-2, -1e-2))
        return (up - down) / 2e-2

    other = {"w1 w2": "w3", "w3": "w1 w2"}
    pairs = zip(rows["prompt"], rows["worked"], strict=True)
    expected = np.mean([slope(p, right) - slope(p, other[right]) for p, right in pairs])
    assert vector @ direction == pytest.approx(expected, rel=2e-2, abs=2e-3)


def test_rows_without_a_wrong_answer_have_no_gradient(tiny):
    with pytest.raises(DataError, match="no wrong answer"):
        gradient_of_answers(session_of(tiny, HOW), word_rows(4), SITE, seed=0)
    one = word_rows(1).assign(letters=[["w0", "w1"]])
    with pytest.raises(DataError, match="two training rows whose prompts fit"):
        gradient_of_answers(session_of(tiny, HOW), one, SITE, seed=0)


def test_the_fisher_information_is_of_answers_to_training_prompts(tiny):
    session, rows = session_of(tiny, HOW), word_rows(12)
    settings = FisherSettings(texts=8, tokens=24, samples=2)
    found = fisher_of_answers(session, rows, SITE, settings, seed=0)
    assert found.texts == 8 and 8 <= found.tokens <= 16  # of answers, which have two tokens
    assert np.linalg.eigvalsh(found.matrix)[0] > 0
    again = fisher_of_answers(session, rows, SITE, settings, seed=0)
    assert np.array_equal(found.matrix, again.matrix)
    with pytest.raises(DataError, match="too few to estimate"):
        fisher_of_answers(session, rows[:3], SITE, settings, seed=0)
