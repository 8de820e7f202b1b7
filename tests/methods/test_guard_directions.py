"""Guards of declared programs: their directions, their bounds, and what they cost and save."""

import numpy as np
import pandas as pd
import pytest
import torch
from small_world import decoder, fit_data, inputs, probe
from test_declared_programs import EXAMPLES, SITE, declared

from steering_core.errors import ConfigError, DataError
from steering_core.generation.steered_method import read_steered_method
from steering_core.methods.declared_programs import solve_declared
from steering_core.methods.guard_directions import guards_of, same_site, write_guard_rows
from steering_core.methods.interventions import ProgramLogit, write_program
from steering_core.methods.solutions import write_solutions
from steering_core.storage.arrays import save_decoder

H = inputs()
COMPONENTS = {"direction": "principal_components", "count": 2, "kappa": 0.3, "experiment": None}
OTHER = {"direction": "probe", "count": None, "kappa": 0.1, "experiment": "other"}


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
    with pytest.raises(ValueError, match="probes: there is none of other"):
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


def test_an_impossible_guard_is_named():
    held = guards({**OTHER, "kappa": 0.0})  # the margin is on this very probe
    found = solve(held, concept_direction="probe")
    assert (found.rows["status"] == "infeasible").all() and np.isnan(found.vectors).all()
    assert found.guard_rows["blocking"].all()


@pytest.mark.parametrize("metric", ["identity", "covariance"])
def test_an_adaptive_program_keeps_its_guards_at_every_position(tmp_path, metric):
    held = guards()
    found = solve(held, mode="adaptive", metric=metric)
    logit = ProgramLogit("qp", found.weight, found.bias, found.metric, found.cost, found.guards)
    files = {name: str(tmp_path / name) for name in ("solutions", "plan", "decoder")}
    write_program(files["plan"], SITE, found.vectors, found.index, logit)
    write_solutions(found.rows, files["solutions"])
    save_decoder(files["decoder"], decoder(), "tiny")
    steered = read_steered_method(
        "mine", files, SITE, positions="last", target_class=1, device=torch.device("cpu")
    )
    rows = steered.at(1, ["e7", "e2"])
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
