"""Declared programs: their rows, their vectors, and the file that carries both to later stages."""

from dataclasses import replace
from types import SimpleNamespace

import cvxpy as cp
import numpy as np
import pandas as pd
import pytest
import torch
from small_world import concept, decoder, fit_data, inputs, probe

from steering_core.errors import DataError
from steering_core.generation.steered_method import read_steered_method
from steering_core.methods.declared_programs import (
    covariance_metric,
    oriented_logit,
    program_grid,
    solve_declared,
)
from steering_core.methods.directions import FitData
from steering_core.methods.programs import QPOptimalSteering
from steering_core.methods.solution_vectors import ProgramLogit, read_plan, write_program
from steering_core.methods.solutions import write_solutions
from steering_core.models.site import Site
from steering_core.optimize.path import SteeringPath
from steering_core.optimize.substitution import dense_optima, substitute
from steering_core.probes.fit import calibrated
from steering_core.statistics.fisher import Fisher, FisherSums
from steering_core.storage.arrays import save_decoder

DIRECTIONS = ["probe", "mean_difference", "contrastive", "repe", "likelihood_gradient"]
SEVERAL = ["mean_difference", "contrastive", "likelihood_gradient"]
METRICS = ["identity", "covariance", "fisher"]
SITE = Site(1, "pre", False, True)
H = inputs()
EXAMPLES = pd.DataFrame(
    {
        "example_id": [f"e{i}" for i in range(len(H))],
        "split": ["validation", "test", "prompt", "validation_prompt", "test"] * (len(H) // 5),
        "label": ([0, 1, None, None, 0] * (len(H) // 5)),
    }
)


def declared(**changed):
    plain = {
        "program": "qp",
        "mode": "uniform",
        "concept_direction": "mean_difference",
        "metric": "identity",
        "feature_cost": "unit",
        "tau": [1.0, 2.0],
        "qp_lambda": [0.5],
        "features": None,
        "epsilon": None,
    }
    return SimpleNamespace(**{**plain, **changed})


def training() -> FitData:
    """The small world's training data, with a likelihood gradient that leans to the concept."""
    gradient = concept() + 0.2 * decoder()[7]
    return replace(fit_data(), likelihood_gradient=0.03 * gradient)


def fisher() -> Fisher:
    """An estimate in which some directions cost the output a hundred times as much as others."""
    rng = np.random.default_rng(3)
    sums = FisherSums.empty(len(concept()))
    for row in rng.standard_normal((200, 2, len(concept()))) * np.geomspace(1, 10, len(concept())):
        sums.add(row, 24)
    return sums.fisher()


def solve(**changed):
    return solve_declared(
        "mine", declared(**changed), EXAMPLES, H, probe(), training(), decoder(), fisher()
    )


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    "program",
    [
        {"program": "qp"},
        {"program": "socp", "qp_lambda": None, "epsilon": [20.0]},
        {"program": "dense", "qp_lambda": None},
        {"program": "qp", "feature_cost": "fisher"},
        {"program": "socp", "qp_lambda": None, "epsilon": [20.0], "feature_cost": "fisher"},
    ],
)
def test_every_vector_has_its_margin_on_the_direction(direction, metric, program):
    weight, bias = oriented_logit(direction, probe(), training())
    for mode in ("uniform", "static", "shared"):
        found = solve(concept_direction=direction, metric=metric, mode=mode, **program)
        assert found.rows["status"].isin(["optimal", "already_satisfied"]).all()
        assert (found.rows["relative_gap"].dropna().abs() < 1e-8).all()
        tau = np.repeat([1.0, 2.0], len(H))
        vectors = found.vectors[found.index]
        moved = vectors @ weight
        logits = np.tile(H @ weight + bias, 2)
        if mode == "uniform":
            np.testing.assert_allclose(moved, tau)
            assert len(found.vectors) == 2
        elif mode == "static":
            np.testing.assert_allclose(moved, np.maximum(tau - logits, 0), atol=1e-9)
        else:
            outside = (EXAMPLES["split"] == "validation") & (EXAMPLES["label"] == 0)
            worst = (H @ weight + bias)[outside.to_numpy()].min()
            np.testing.assert_allclose(moved, np.maximum(tau - worst, 0))
        norms = np.linalg.norm(vectors, axis=1)
        np.testing.assert_allclose(found.rows["residual_norm"], norms)


def square_of(metric: str) -> np.ndarray:
    return {
        "identity": np.eye(len(concept())),
        "covariance": covariance_metric(fit_data().residuals, fit_data().labels),
        "fisher": fisher().metric,
    }[metric]


def cost_of(feature_cost: str) -> np.ndarray:
    if feature_cost == "unit":
        return np.ones(len(decoder()))
    cost = np.sqrt(np.einsum("fi,ij,fj->f", decoder(), fisher().matrix, decoder()))
    return cost / cost.mean()


def oracle(weight, metric, cost, margin, *, qp_lambda=None, epsilon=None):
    """The least objective by a conic solver that knows nothing of paths."""
    rows = decoder()
    delta = cp.Variable(len(rows), nonneg=True)
    vector = rows.T @ delta
    square = cp.quad_form(vector, cp.psd_wrap(metric))
    limits = [weight @ vector >= margin]
    if epsilon is not None:
        limits.append(cp.norm(np.linalg.cholesky(metric).T @ vector) <= epsilon)
    problem = cp.Problem(cp.Minimize(cost @ delta + (qp_lambda or 0.0) / 2 * square), limits)
    problem.solve(solver=cp.CLARABEL)
    return problem.value


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("feature_cost", ["unit", "fisher"])
def test_every_program_is_the_optimum_of_a_solver_without_a_path(direction, metric, feature_cost):
    weight, _ = oriented_logit(direction, probe(), training())
    square, cost = square_of(metric), cost_of(feature_cost)
    shared = {"concept_direction": direction, "metric": metric, "feature_cost": feature_cost}
    found = solve(**shared)
    for index, margin in enumerate((1.0, 2.0)):
        row = found.rows[found.rows["strength_index"] == index].iloc[0]
        best = oracle(weight, square, cost, margin, qp_lambda=0.5)
        assert row["objective"] == pytest.approx(best, rel=1e-5)
        vector = found.vectors[index]
        length = np.sqrt(vector @ square @ vector)
    socp = solve(program="socp", qp_lambda=None, epsilon=[1.2 * length], tau=[2.0], **shared)
    best = oracle(weight, square, cost, 2.0, epsilon=1.2 * length)
    assert socp.rows["objective"].iloc[0] == pytest.approx(best, rel=1e-5)
    if feature_cost == "unit":
        floor = solve(program="dense", qp_lambda=None, tau=[2.0], **shared).vectors[0]
        v = cp.Variable(len(weight))
        norm = cp.norm(np.linalg.cholesky(square).T @ v)
        least = cp.Problem(cp.Minimize(norm), [weight @ v >= 2.0]).solve(solver=cp.CLARABEL)
        assert np.sqrt(floor @ square @ floor) == pytest.approx(least, rel=1e-6)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("feature_cost", ["unit", "fisher"])
def test_a_program_with_several_margins_is_the_optimum_of_a_solver_without_a_path(
    metric, feature_cost
):
    weight = np.stack([oriented_logit(one, probe(), training())[0] for one in SEVERAL])
    square, cost = square_of(metric), cost_of(feature_cost)
    shared = {"concept_direction": SEVERAL, "metric": metric, "feature_cost": feature_cost}
    found = solve(**shared)
    assert found.weight.shape == weight.shape
    for index, margin in enumerate((1.0, 2.0)):
        row = found.rows[found.rows["strength_index"] == index].iloc[0]
        best = oracle(weight, square, cost, margin, qp_lambda=0.5)
        assert row["objective"] == pytest.approx(best, rel=1e-5)
        vector = found.vectors[index]
        length = np.sqrt(vector @ square @ vector)
        assert (weight @ vector >= margin * (1 - 1e-9)).all()
    socp = solve(program="socp", qp_lambda=None, epsilon=[1.2 * length], tau=[2.0], **shared)
    best = oracle(weight, square, cost, 2.0, epsilon=1.2 * length)
    assert socp.rows["objective"].iloc[0] == pytest.approx(best, rel=1e-5)
    if feature_cost == "unit":
        floor = solve(program="dense", qp_lambda=None, tau=[2.0], **shared).vectors[0]
        v = cp.Variable(weight.shape[1])
        norm = cp.norm(np.linalg.cholesky(square).T @ v)
        least = cp.Problem(cp.Minimize(norm), [weight @ v >= 2.0]).solve(solver=cp.CLARABEL)
        assert np.sqrt(floor @ square @ floor) == pytest.approx(least, rel=1e-6)


@pytest.mark.parametrize(
    "program",
    [
        {"program": "qp"},
        {"program": "socp", "qp_lambda": None, "epsilon": [30.0]},
        {"program": "dense", "qp_lambda": None},
    ],
)
@pytest.mark.parametrize("mode", ["uniform", "static", "shared"])
def test_every_vector_has_its_margin_on_each_of_several_directions(mode, program):
    logits = [oriented_logit(one, probe(), training()) for one in SEVERAL[:2]]
    found = solve(concept_direction=SEVERAL[:2], mode=mode, **program)
    assert found.rows["status"].isin(["optimal", "already_satisfied"]).all()
    outside = ((EXAMPLES["split"] == "validation") & (EXAMPLES["label"] == 0)).to_numpy()
    at = np.stack([H @ weight + bias for weight, bias in logits], axis=1)
    at = {"uniform": 0 * at, "static": at, "shared": np.tile(at[outside].min(axis=0), (25, 1))}[
        mode
    ]
    shortfall = np.concatenate([tau - at for tau in (1.0, 2.0)])
    vectors = found.vectors[found.index]
    moved = np.stack([vectors @ weight for weight, _ in logits], axis=1)
    asked = shortfall.max(axis=1) > 0
    assert asked.any() and not vectors[~asked].any()
    assert (moved[asked] >= shortfall[asked] - 1e-6).all()
    # Of the margins of a row at least one binds.
    np.testing.assert_allclose((moved - shortfall)[asked].min(axis=1), 0, atol=1e-6)
    np.testing.assert_allclose(found.rows["shortfall"], shortfall.max(axis=1))
    assert len(found.vectors) == (2 if mode != "static" else 50)


def test_margins_that_contradict_each_other_have_no_dense_vector():
    weights = np.stack([concept(), -concept()])
    found = dense_optima(
        weights, np.array([[1.0, 0.5], [1.0, -2.0], [-1.0, -1.0]]), substitute(decoder())
    )
    assert np.isnan(found[0]).all() and not found[2].any()
    np.testing.assert_allclose(found[1], concept())


def test_a_list_of_one_direction_is_that_direction():
    assert np.array_equal(
        solve(concept_direction=["contrastive"]).vectors,
        solve(concept_direction="contrastive").vectors,
    )


def test_l0_and_l1_are_of_the_coefficients_and_not_of_their_costs():
    found = solve(feature_cost="fisher")
    inside = substitute(decoder(), None, fisher().feature_cost(decoder()))
    path = SteeringPath.fit(inside.decoder, inside.weight(found.weight))
    delta = path.qp(2.0, 0.5).delta.toarray()[0] / inside.cost
    last = found.rows.iloc[-1]
    assert last["l1"] == pytest.approx(delta.sum()) and last["l0"] == (delta > 0).sum()
    np.testing.assert_allclose(found.vectors[-1], delta @ decoder())


def test_a_program_on_the_likelihood_gradient_needs_it():
    with pytest.raises(ValueError, match="data: the likelihood gradient is missing"):
        oriented_logit("likelihood_gradient", probe(), fit_data())


def test_a_program_in_the_metric_of_kl_needs_an_estimate():
    with pytest.raises(ValueError, match="fisher: the program needs"):
        solve_declared(
            "mine", declared(metric="fisher"), EXAMPLES, H, probe(), training(), decoder()
        )


def test_a_static_program_on_the_probe_is_the_registered_one():
    found = solve(concept_direction="probe", mode="static")
    registered = QPOptimalSteering(qp_lambda=0.5, tau=2.0).compute_steering_vectors(
        H, probe().weight_vector, probe().bias, decoder()
    )
    assert np.array_equal(found.vectors[found.index][len(H) :], registered)


def test_what_is_infeasible_has_its_status_and_no_vector():
    found = solve(program="socp", qp_lambda=None, epsilon=[1e-3])
    assert (found.rows["status"] == "infeasible").all() and np.isnan(found.vectors).all()
    assert found.rows["l0"].isna().all()


def test_the_strengths_are_in_the_order_of_the_registered_programs():
    points = program_grid("mine", declared(qp_lambda=[0.1, 1.0]))
    assert [(p.strength_index, p.tau, p.qp_lambda) for p in points] == [
        (0, 1.0, 0.1), (1, 2.0, 0.1), (2, 1.0, 1.0), (3, 2.0, 1.0),
    ]  # fmt: skip
    socp = program_grid("mine", declared(program="socp", epsilon=[3.0, 5.0]))
    assert [(p.strength, p.tau) for p in socp] == [(3.0, 1.0), (5.0, 1.0), (3.0, 2.0), (5.0, 2.0)]


@pytest.mark.parametrize("metric", ["identity", "covariance"])
def test_counts_of_features_are_met_on_the_exact_path(metric):
    counts = [1, 2, 4, 1000]
    found = solve(qp_lambda=None, features=counts, metric=metric)
    rows = found.rows.drop_duplicates("strength_index")
    assert (found.rows["status"] == "optimal").all()
    assert list(rows["strength_name"].unique()) == [f"tau at features={n}" for n in counts]
    assert list(rows["l0"][:6]) == [1, 1, 2, 2, 4, 4]
    # At a count the margins share a direction; with more features the vector is shorter in the
    # metric, down to the dense optimum's length.
    np.testing.assert_allclose(found.vectors[1::2], 2 * found.vectors[::2], rtol=1e-6)
    floor = solve(program="dense", qp_lambda=None, metric=metric)
    square = np.eye(len(found.weight)) if found.metric is None else found.metric
    lengths = [float(np.sqrt(v @ square @ v)) for v in [*found.vectors[::2], floor.vectors[0]]]
    assert all(np.diff(lengths) < 0)
    # The path ends at the least length that non-negative combinations of features have.
    fewer = solve(qp_lambda=None, features=[int(rows["l0"].iloc[-1]) - 1], metric=metric)
    v = fewer.vectors[0]
    assert float(np.sqrt(v @ square @ v)) >= lengths[-2]


def test_a_direction_is_calibrated_to_logits():
    data = fit_data()
    target = data.labels == 1
    weight, bias = calibrated(concept(), data.residuals, target)
    logits = data.residuals @ weight + bias
    assert np.corrcoef(weight, concept())[0, 1] == pytest.approx(1.0)
    # The mean predicted probability of a logistic regression is the share of the class.
    assert (1 / (1 + np.exp(-logits))).mean() == pytest.approx(target.mean(), abs=1e-4)
    assert calibrated(3 * concept(), data.residuals, target)[0] == pytest.approx(weight)


def test_a_direction_away_from_the_target_class_is_refused_with_advice():
    data = fit_data()
    with pytest.raises(DataError, match=r"repe points away.*choose another concept_direction"):
        calibrated(-concept(), data.residuals, data.labels == 1, "repe")
    with pytest.raises(DataError, match="same projection"):
        calibrated(0 * concept(), data.residuals, data.labels == 1)


@pytest.mark.parametrize(
    ("metric", "feature_cost"),
    [("identity", "unit"), ("covariance", "unit"), ("fisher", "unit"), ("fisher", "fisher")],
)
@pytest.mark.parametrize("mode", ["uniform", "static", "adaptive"])
@pytest.mark.parametrize("direction", ["mean_difference", SEVERAL[:2]], ids=["one", "two"])
def test_a_program_steers_later_stages_as_it_was_solved(
    tmp_path, mode, metric, feature_cost, direction
):
    found = solve(mode=mode, metric=metric, feature_cost=feature_cost, concept_direction=direction)
    logit = ProgramLogit("qp", found.weight, found.bias, found.metric, found.cost, mode=mode)
    files = {name: str(tmp_path / name) for name in ("solutions", "plan", "decoder")}
    write_program(files["plan"], SITE, found.vectors, found.index, logit)
    write_solutions(found.rows, files["solutions"])
    save_decoder(files["decoder"], decoder(), "tiny")

    plan = read_plan(files["solutions"], files["plan"], "mine")
    assert plan.moves_alone(SITE) and plan.points() == [0, 1]
    steered = read_steered_method(
        "mine", files, SITE, positions="last", target_class=1, device=torch.device("cpu")
    )
    ids = ["e7", "e2"]
    rows = steered.at(1, ids)
    expected = found.vectors[found.index][len(H) :][[7, 2]]
    assert np.array_equal(plan.at_site(SITE).vectors(rows), expected)
    intervention = steered.intervention(rows)
    assert intervention.is_adaptive == (mode == "adaptive")
    if mode == "adaptive":  # at the residuals that were solved for, the same optimum
        [rule] = intervention.at.values()
        residual = torch.tensor(H[[7, 2]], dtype=torch.float32)
        there = rule.start().at(torch.arange(2), residual) - residual
        np.testing.assert_allclose(there, expected, atol=1e-4)
