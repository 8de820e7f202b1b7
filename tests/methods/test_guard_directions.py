"""Guards of declared programs: their directions, their bounds, and what they cost and save."""

import numpy as np
import pandas as pd
import pytest
import torch
from small_world import decoder, fit_data, inputs, probe
from test_declared_programs import EXAMPLES, SITE, declared

from steering_core.errors import ConfigError, DataError
from steering_core.generation.new_inputs import _of_declared
from steering_core.generation.steered_method import read_steered_method
from steering_core.methods.declared_programs import solve_declared
from steering_core.methods.directions import CAAContrastive
from steering_core.methods.guard_directions import (
    guards_of,
    mean_contrast,
    same_site,
    write_guard_rows,
)
from steering_core.methods.solution_vectors import ProgramLogit, write_program
from steering_core.methods.solutions import write_solutions
from steering_core.storage.arrays import save_decoder

H = inputs()
COMPONENTS = {"direction": "principal_components", "count": 2, "kappa": 0.3, "experiment": None}
OTHER = {"direction": "probe", "count": None, "kappa": 0.1, "experiment": "other"}
CONTRAST = {"direction": "contrastive", "concept": "concepts/refusal.yaml", "kappa": 0.2}


def guards(*given):
    return guards_of(given or (COMPONENTS,), fit_data().residuals, {"other": probe()})


def solve(guarding, **changed):
    return solve_declared(
        "mine", declared(**changed), EXAMPLES, H, probe(), fit_data(), decoder(), guards=guarding
    )


def test_a_projection_has_a_standard_deviation_of_one_on_training_rows():
    found = guards(COMPONENTS, OTHER)
    assert found.names == ("component 1", "component 2", "probe of other")
    assert found.kappa.tolist() == [0.3, 0.3, 0.1]
    spread = (fit_data().residuals @ found.directions.T).std(axis=0)
    np.testing.assert_allclose(spread, 1.0)
    first, second = found.directions[:2]
    assert abs(first @ second) < 1e-9 * np.linalg.norm(first) * np.linalg.norm(second)
    along = probe().weight_vector
    assert np.corrcoef(found.directions[2], along)[0, 1] == pytest.approx(1.0)
    assert guards_of([], fit_data().residuals) is None


def test_refuses_guards_that_the_data_do_not_have():
    with pytest.raises(DataError, match="1000 principal components are asked for"):
        guards({**COMPONENTS, "count": 1000})
    flat = np.ones((5, H.shape[1]))
    with pytest.raises(DataError, match="probe of other: all training rows"):
        guards_of([OTHER], flat, {"other": probe()})
    with pytest.raises(ValueError, match="probes: the probe of other is missing"):
        guards_of([OTHER], fit_data().residuals)


def test_a_probe_of_another_layer_is_refused():
    mine = {"layer": 1, "stream": "pre", "centred": False}
    same_site("other", mine, mine)
    with pytest.raises(ConfigError, match="set the same `layer` in both"):
        same_site("other", {**mine, "layer": 2}, mine)


@pytest.mark.parametrize("metric", ["identity", "covariance"])
@pytest.mark.parametrize(
    "program", [{"program": "qp"}, {"program": "socp", "qp_lambda": None, "epsilon": [200.0]}]
)
@pytest.mark.parametrize("mode", ["uniform", "static", "shared"])
def test_no_vector_exceeds_a_guard_and_every_margin_is_met(metric, program, mode):
    held = guards()
    free = solve(None, metric=metric, mode=mode, **program)
    found = solve(held, metric=metric, mode=mode, **program)
    assert found.rows["status"].isin(["optimal", "already_satisfied"]).all()
    vectors = found.vectors[found.index]
    assert (np.abs(held.shifts(vectors)) <= 0.3 + 1e-8).all()
    assert (np.abs(held.shifts(free.vectors)) > 0.3).any()
    moved = vectors @ found.weight
    np.testing.assert_array_less(found.rows["shortfall"] - 1e-7, np.maximum(moved, 1e-7))
    assert (found.rows["objective"] >= free.rows["objective"] * (1 - 1e-9)).all()
    assert (found.rows["relative_gap"].abs() < 1e-8).all()
    rows = found.guard_rows
    assert rows["guard"].unique().tolist() == ["component 1", "component 2"]
    assert len(rows) == 2 * len(found.rows) and free.guard_rows is None
    one = rows[rows["guard"] == "component 2"].reset_index(drop=True)
    np.testing.assert_allclose(one["shift"], held.shifts(vectors)[:, 1], atol=1e-9)
    apart = held.shifts(free.vectors[free.index])[:, 1]
    np.testing.assert_allclose(one["shift_unguarded"], apart, atol=1e-9)
    np.testing.assert_allclose(one["residual_norm_unguarded"], free.rows["residual_norm"])


@pytest.mark.parametrize("mode", ["uniform", "static", "shared", "adaptive"])
@pytest.mark.parametrize(
    "program", [{"program": "qp"}, {"program": "socp", "qp_lambda": None, "epsilon": [200.0]}]
)
def test_an_impossible_guard_is_named(mode, program):
    held = guards({**OTHER, "kappa": 0.0}, {**COMPONENTS, "kappa": 50.0})
    found = solve(held, concept_direction="probe", mode=mode, **program)
    asked = found.rows["shortfall"] > 0
    assert asked.any() and (found.rows.loc[asked, "status"] == "infeasible").all()
    assert np.isnan(found.vectors[found.index[asked]]).all()
    # The margin is on this very probe; the other guards are wide.
    of = found.guard_rows.merge(
        found.rows.loc[asked, ["strength_index", "example_id"]], validate="many_to_one"
    )
    blocking = of.groupby("guard")["blocking"]
    assert blocking.all().to_dict() == {
        **{"component 1": False, "component 2": False},
        "probe of other": True,
    }


@pytest.mark.parametrize("directions", ["probe", ["probe", "mean_difference"]])
def test_an_adaptive_program_names_the_guard_that_leaves_a_position_without_a_vector(
    tmp_path, caplog, directions
):
    held = guards({**OTHER, "kappa": 0.0})  # the margin is on this very probe
    found = solve(held, mode="adaptive", concept_direction=directions)
    rows, steered = _adaptive(tmp_path, found)
    caplog.clear()
    [rule] = steered.intervention(rows).at.values()
    residual = torch.tensor(H[[7, 2]], dtype=torch.float32)
    steering = rule.start()
    for _ in range(2):
        assert torch.equal(steering.at(torch.arange(2), residual), residual)
    assert steering.unsolved(np.array([2, 2])).tolist() == [2, 2]
    assert caplog.text.count("the guards (probe of other) leave no solution") == 1


def _adaptive(tmp_path, found):
    """Write a program that is solved at every position, and read it for two rows."""
    logit = ProgramLogit("qp", found.weight, found.bias, found.metric, found.cost, found.guards)
    files = {name: str(tmp_path / name) for name in ("solutions", "plan", "decoder")}
    write_program(files["plan"], SITE, found.vectors, found.index, logit)
    write_solutions(found.rows, files["solutions"])
    save_decoder(files["decoder"], decoder(), "tiny")
    steered = read_steered_method(
        "mine", files, SITE, positions="last", target_class=1, device=torch.device("cpu")
    )
    return steered.at(1, ["e7", "e2"]), steered


def test_a_concept_file_gives_the_direction_between_its_pairs():
    data = fit_data()
    pairs = data.contrast_positive, data.contrast_negative
    found = mean_contrast(*pairs, "concepts/refusal.yaml")
    np.testing.assert_allclose(
        found, CAAContrastive().find(data, decoder()).vector * _length(found)
    )
    held = guards_of([CONTRAST], data.residuals, contrasts={CONTRAST["concept"]: found})
    assert held.names == ("contrast of refusal",) and held.kappa.tolist() == [0.2]
    np.testing.assert_allclose((data.residuals @ held.directions[0]).std(), 1.0)
    with pytest.raises(ValueError, match="contrasts: the direction of concepts/refusal"):
        guards_of([CONTRAST], data.residuals)
    with pytest.raises(DataError, match=r"refusal\.yaml: the pairs have no difference"):
        mean_contrast(pairs[0], pairs[0], "concepts/refusal.yaml")


def _length(vector):
    return np.linalg.norm(vector)


SEVERAL = ["mean_difference", "repe"]


@pytest.mark.parametrize("mode", ["uniform", "static", "shared"])
@pytest.mark.parametrize(
    "program",
    [
        {"concept_direction": SEVERAL},
        {"concept_direction": SEVERAL, "metric": "covariance"},
        {"program": "dense", "qp_lambda": None},
        {"program": "dense", "qp_lambda": None, "concept_direction": SEVERAL},
        {"program": "dense", "qp_lambda": None, "metric": "covariance"},
    ],
)
def test_several_directions_and_dense_programs_keep_their_guards(program, mode):
    held = guards({**COMPONENTS, "kappa": 0.05})
    free, found = (solve(one, mode=mode, **program) for one in (None, held))
    assert found.rows["status"].isin(["optimal", "already_satisfied"]).all()
    vectors = found.vectors[found.index]
    assert (np.abs(held.shifts(vectors)) <= 0.05 + 1e-7).all()
    assert (np.abs(held.shifts(free.vectors)) > 0.05).any()
    moved = vectors @ np.atleast_2d(found.weight).T
    if mode == "uniform":
        tau = found.rows["tau"].to_numpy()[:, None]
        assert (moved >= tau * (1 - 1e-6)).all()
    rows = found.guard_rows[found.guard_rows["guard"] == "component 2"].reset_index(drop=True)
    np.testing.assert_allclose(rows["shift"], held.shifts(vectors)[:, 1], atol=1e-9)
    apart = held.shifts(free.vectors[free.index])[:, 1]
    np.testing.assert_allclose(rows["shift_unguarded"], apart, atol=1e-6)
    assert (rows["price"] >= 0).all() and found.guard_rows["price"].gt(0).any()
    assert rows["l0"].isna().all() == (program.get("program") == "dense")


@pytest.mark.parametrize("metric", ["identity", "covariance"])
def test_a_guarded_dense_program_acts_on_new_inputs_as_on_its_own(metric):
    held = guards({**COMPONENTS, "kappa": 0.05})
    found = solve(held, program="dense", qp_lambda=None, mode="static", metric=metric)
    logit = ProgramLogit("dense", found.weight, found.bias, found.metric, None, held, mode="static")
    point = found.rows[found.rows["strength_index"] == 1].iloc[0].fillna(np.nan)
    again = _of_declared("mine", logit, point, decoder(), SITE, torch.device("cpu"), "last")
    made = again.steer(H).intervention.at[SITE].vectors
    np.testing.assert_allclose(made, found.vectors[found.index][len(H) :], atol=1e-7)
    assert held.over(np.asarray(made, dtype=float)).max() <= 1e-6


def test_an_impossible_guard_of_a_dense_program_is_named():
    held = guards({**OTHER, "kappa": 0.0}, COMPONENTS)  # the margin is on this very probe
    found = solve(held, concept_direction="probe", program="dense", qp_lambda=None)
    assert (found.rows["status"] == "infeasible").all() and np.isnan(found.vectors).all()
    blocking = found.guard_rows.groupby("guard")["blocking"].all()
    assert blocking["probe of other"] and not blocking["component 1"]


@pytest.mark.parametrize("metric", ["identity", "covariance"])
def test_an_adaptive_program_keeps_its_guards_at_every_position(tmp_path, metric):
    held = guards()
    found = solve(held, mode="adaptive", metric=metric)
    rows, steered = _adaptive(tmp_path, found)
    [rule] = steered.intervention(rows).at.values()
    residual = torch.tensor(H[[7, 2]], dtype=torch.float32)
    there = (rule.start().at(torch.arange(2), residual) - residual).double().numpy()
    assert (np.abs(held.shifts(there)) <= 0.3 + 1e-4).all()
    expected = found.vectors[found.index][len(H) :][[7, 2]]
    np.testing.assert_allclose(there, expected, atol=5e-3 * np.abs(expected).max())


def test_a_program_without_guards_has_an_empty_file(tmp_path):
    write_guard_rows(None, tmp_path / "none.parquet")
    assert pd.read_parquet(tmp_path / "none.parquet").empty
    found = solve(guards())
    write_guard_rows(found.guard_rows, tmp_path / "some.parquet")
    assert len(pd.read_parquet(tmp_path / "some.parquet")) == len(found.guard_rows)
