"""What a method of an experiment adds to inputs that the experiment has not solved."""

import numpy as np
import pandas as pd
import pytest
import torch

from steering_core.generation.adaptive import RowPrograms
from steering_core.generation.intervention import GatedRows
from steering_core.generation.new_inputs import chosen_point, strength_on_new_inputs
from steering_core.methods.base import Direction, write_directions
from steering_core.methods.fixed_solutions import solve_plan
from steering_core.methods.gates import Gate
from steering_core.methods.programs import solve_programs
from steering_core.methods.solution_vectors import ProgramLogit, write_plan, write_program
from steering_core.methods.solutions import GridPoint, solution_rows, write_solutions
from steering_core.models.site import Site
from steering_core.optimize.path import SteeringPath
from steering_core.optimize.working_set.bounds import Guards
from steering_core.probes.linear_probe import LinearProbe
from steering_core.storage.arrays import save_arrays

SITE = Site(layer=1, stream="post", centred=False, prepend_bos=True)
IDS = ["a", "b", "c"]
RNG = np.random.default_rng(0)
DECODER = RNG.standard_normal((40, 32)).astype(np.float32)
DECODER /= np.linalg.norm(DECODER, axis=1, keepdims=True)
WEIGHT = RNG.standard_normal(32)
PROBE = LinearProbe(WEIGHT, -0.2, (0, 1), 1.0, 1.0, (1.0,), 0.0, False, 10)
H = RNG.standard_normal((3, 32))
#: The logits of two margins.
WEIGHTS = np.stack([WEIGHT, np.random.default_rng(1).standard_normal(32)])
BIASES = np.array([-0.2, 0.1])


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("experiment")
    names = {name: str(folder / name) for name in ("directions", "path", "probe", "decoder")}
    path = SteeringPath.fit(DECODER, WEIGHT)
    path.qp(np.array([3.0]), qp_lambda=1.0)
    path.save(names["path"])
    PROBE.save(names["probe"])
    save_arrays(names["decoder"], {"decoder": DECODER}, {})
    directions = {
        "caa_mean_diff": Direction(WEIGHT / np.linalg.norm(WEIGHT)),
        "single_feature": Direction(DECODER[3].astype(float), np.array([3]), np.array([1.0])),
    }
    write_directions(names["directions"], directions, 2.5, 1)
    return names


def point(method, **cells):
    row = {"method": method, "strength": np.nan, "tau": np.nan, "lam": np.nan, "epsilon": np.nan}
    return pd.Series(row | cells)


def steered(method, files, residuals=H, **cells):
    strength = strength_on_new_inputs(
        point(method, **cells), files, site=SITE, target_class=1, device=torch.device("cpu")
    )
    return strength, strength.steer(residuals)


@pytest.mark.parametrize(("method", "used"), [("caa_mean_diff", None), ("single_feature", 1)])
def test_a_direction_has_the_length_that_it_has_in_its_experiment(files, method, used):
    strength, found = steered(method, files, strength=0.5)
    assert strength.name == "alpha 0.5" and found.reason == [""] * 3
    norms = found.intervention.norms(3)
    np.testing.assert_allclose(norms, 0.5 * 2.5)
    assert found.n_features is None if used is None else found.n_features.tolist() == [used] * 3


@pytest.mark.parametrize(
    ("method", "cells"),
    [("qp_optimal", {"tau": 4.0, "lam": 1.0}), ("convex_optimal", {"tau": 1.0, "epsilon": 50.0})],
)
def test_a_static_program_brings_each_question_to_the_margin(files, method, cells):
    _, found = steered(method, files, **cells)
    (what,) = found.intervention.at.values()
    assert found.reason == [""] * 3
    after = PROBE.decision(H + what.vectors)
    assert (after >= cells["tau"] - 1e-6).all()
    # It is what the experiment's own solver adds for such residuals.
    names = {"qp_lambda": cells.get("lam"), "epsilon": cells.get("epsilon")}
    own = GridPoint(method, 0, "-", 1.0, cells["tau"], **names)
    rows = solve_programs([own], IDS, H, PROBE, SteeringPath.fit(DECODER, WEIGHT))
    np.testing.assert_allclose(found.intervention.norms(3), rows["residual_norm"], rtol=1e-6)
    np.testing.assert_allclose(found.n_features, rows["l0"])


def test_a_shared_vector_is_that_of_the_experiment(files):
    _, found = steered("qp_shared", files, tau=4.0, lam=1.0, shortfall=6.5)
    (what,) = found.intervention.at.values()
    np.testing.assert_allclose(what.vectors @ WEIGHT, 6.5)


def test_an_adaptive_program_is_solved_at_every_position(files):
    _, found = steered("qp_adaptive", files, tau=4.0, lam=1.0)
    plan = found.intervention.at[SITE]
    assert isinstance(plan, RowPrograms) and found.n_features is None
    assert plan.tau.tolist() == [4.0] * 3 and plan.parameter.tolist() == [1.0] * 3


def test_a_plan_is_scaled_at_each_of_its_sites(tmp_path):
    at = {SITE: WEIGHT.astype("f4"), Site(2, "post", False, True): DECODER[1]}
    examples = pd.DataFrame({"example_id": IDS, "split": "prompt"})
    rows = solve_plan("mine", [1.0, 3.0], 2.0, 7, examples)
    write_solutions(rows, tmp_path / "rows")
    write_plan(tmp_path / "plan", at)
    names = {"solutions": str(tmp_path / "rows"), "plan": str(tmp_path / "plan")}
    found = strength_on_new_inputs(
        rows[rows["strength"] == 3.0].iloc[0],
        names,
        site=SITE,
        target_class=1,
        device=torch.device("cpu"),
        positions="all",
    ).steer(H)
    assert found.n_features.tolist() == [7] * 3 and found.intervention.positions == "all"
    for site, vector in at.items():
        np.testing.assert_allclose(found.intervention.at[site].vectors, 3.0 * vector)


def declared(
    tmp_path, index=(0, 0, 0), status="optimal", vectors=DECODER[:3], logit=None, gate=None
):
    point = GridPoint("mine", 0, "tau", 2.0, 2.0, qp_lambda=1.0)
    cells = {"status": status, "l0": 3.0, "shortfall": 2.0, "position": 1.0}
    rows = solution_rows(point, IDS, **cells)
    write_solutions(rows, tmp_path / "rows")
    write_program(tmp_path / "plan", SITE, vectors.astype(float), np.array(index), logit, gate)
    save_arrays(tmp_path / "decoder", {"decoder": DECODER}, {})
    names = {"rows": "solutions", "plan": "plan", "decoder": "decoder"}
    return strength_on_new_inputs(
        rows.iloc[0],
        {name: str(tmp_path / file) for file, name in names.items()},
        site=SITE,
        target_class=1,
        device=torch.device("cpu"),
    ).steer(H)


def test_a_declared_program_that_is_solved_once_adds_its_one_vector(tmp_path):
    found = declared(tmp_path)
    np.testing.assert_allclose(found.intervention.at[SITE].vectors, DECODER[0])
    assert found.n_features.tolist() == [3] * 3 and found.reason == [""] * 3


def test_a_program_without_a_solution_gives_its_status_as_the_reason(tmp_path):
    found = declared(tmp_path, status="infeasible", vectors=np.full((1, 32), np.nan))
    assert found.reason == ["program: infeasible"] * 3


def test_a_declared_program_is_solved_at_every_position_of_new_inputs(tmp_path):
    logit = ProgramLogit("qp", WEIGHT, -0.2, None)
    found = declared(tmp_path, index=(0, 1, 2), logit=logit)
    assert isinstance(found.intervention.at[SITE], RowPrograms) and found.reason == [""] * 3
    once = ProgramLogit("qp", WEIGHT, -0.2, None, mode="static")
    static = declared(tmp_path, index=(0, 1, 2), logit=once)
    assert ((H + static.intervention.at[SITE].vectors) @ WEIGHT - 0.2 >= 2.0 - 1e-6).all()
    alone = declared(tmp_path, index=(0, 1, 2))
    assert alone.reason == ["solved for the inputs of the experiment alone"] * 3


@pytest.mark.parametrize("program", ["qp", "dense"])
def test_several_margins_are_all_kept_on_new_inputs(tmp_path, program):
    logit = ProgramLogit(program, WEIGHTS, BIASES, None, mode="static")
    found = declared(tmp_path, index=(0, 1, 2), logit=logit)
    assert found.reason == [""] * 3 and (found.n_features is None) == (program == "dense")
    after = (H + found.intervention.at[SITE].vectors) @ WEIGHTS.T + BIASES
    assert (after >= 2.0 - 1e-6).all()


def test_several_margins_are_kept_at_every_position_of_new_inputs(tmp_path):
    logit = ProgramLogit("qp", WEIGHTS, BIASES, None, mode="adaptive")
    found = declared(tmp_path, index=(0, 1, 2), logit=logit)
    residual = torch.tensor(H, dtype=torch.float32)
    after = found.intervention.at[SITE].start().at(torch.arange(3), residual).double().numpy()
    assert found.reason == [""] * 3
    assert (after @ WEIGHTS.T + BIASES >= 2.0 - 1e-3).all()


def test_a_gate_is_asked_on_new_inputs_too(tmp_path):
    bias = 1e-3 - float(np.median(H @ WEIGHT))  # closed at one of the three
    gate = Gate(WEIGHT, bias)
    found = declared(tmp_path, gate=gate)
    plan = found.intervention.at[SITE]
    assert isinstance(plan, GatedRows) and plan.n == 3 and plan.site == SITE
    np.testing.assert_array_equal(plan.gate.weight, WEIGHT)
    np.testing.assert_allclose(plan.inner.vectors, DECODER[0])
    residual = torch.tensor(H, dtype=torch.float32)
    moved = plan.start().at(torch.arange(3), residual) - residual
    opened = H @ WEIGHT + bias > 0
    assert opened.sum() == 2
    np.testing.assert_allclose(moved.numpy(), opened[:, None] * DECODER[0], atol=1e-5)


def test_guards_are_kept_on_new_inputs(tmp_path):
    guards = Guards.of(RNG.standard_normal((2, 32)), 0.05)
    logit = ProgramLogit("qp", WEIGHT, -0.2, None, guards=guards)
    found = declared(tmp_path, index=(0, 1, 2), logit=logit)
    residual = torch.tensor(H, dtype=torch.float32)
    plan = found.intervention.at[SITE]
    moved = (plan.start().at(torch.arange(3), residual) - residual).double().numpy()
    assert found.reason == [""] * 3 and np.abs(moved).any()
    assert (np.abs(guards.shifts(moved)) <= 0.05 + 1e-4).all()
    assert (PROBE.decision(H + moved) >= 2.0 - 1e-3).all()


def test_the_strength_is_named_or_the_selected_one():
    points = [GridPoint("qp_optimal", i, "-", tau, tau, 1.0) for i, tau in enumerate((2.0, 4.0))]
    rows = pd.concat([pd.DataFrame([p.columns()] * 2) for p in points], ignore_index=True)
    assert chosen_point(rows, {"tau": 4.0, "lam": 1.0}, None)["strength_index"] == 1
    pareto = rows.drop_duplicates("strength_index").assign(selected=[True, False])
    assert chosen_point(rows, "selected", pareto)["strength_index"] == 0
    assert chosen_point(rows, "selected", pareto.assign(selected=False)) is None
