"""In units of the model, the same numbers are the same programs on models of other scales."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import sparse
from small_world import decoder, fit_data, inputs, probe

from steering_core.config.resolve import resolve
from steering_core.config.schema import Settings
from steering_core.errors import DataError
from steering_core.methods.declared_programs import solve_declared
from steering_core.methods.programs import grid, solve_program_grid
from steering_core.methods.solutions import PARTS, GridPoint, ModelUnits, median_norm
from steering_core.methods.variants import variants_of_test_rows
from steering_core.optimize.dictionary import Dictionary
from steering_core.optimize.path import SteeringPath

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = Settings(methods=["no_steering", "qp_optimal", "convex_optimal", "qp_shared"])
PROGRAMS = SETTINGS.model_copy(update={"methods": ["qp_optimal", "convex_optimal", "qp_shared"]})
DATA, H = fit_data(), inputs(60)
EXAMPLES = pd.DataFrame(
    {
        "example_id": [f"e{i}" for i in range(len(H))],
        "split": ["train", "validation", "test", "prompt"] * 15,
        "label": [0, 1, 1, 0, 1, 0] * 10,
    }
)


class World:
    """The small world with residuals ``c`` times as long, and a probe ``k`` times as steep."""

    def __init__(self, c: float = 1.0, k: float = 1.0):
        self.residuals = c * H
        old = probe()
        self.probe = replace(old, weight_vector=old.weight_vector * k / c, bias=old.bias * k)
        self.path = SteeringPath.fit(decoder(), self.probe.weight_vector)
        self.units = ModelUnits.of_examples(EXAMPLES, self.of, self.probe.decision)

    def of(self, ids):
        return self.residuals[[int(name[1:]) for name in ids]]

    def solved(self, settings=PROGRAMS):
        return solve_program_grid(
            settings, EXAMPLES, self.residuals, self.probe, self.path, 1, self.units
        ).astype(dict.fromkeys(PARTS, float))


def test_the_units_are_medians_of_training_norms_and_validation_logits():
    found, rows = World().units, EXAMPLES["split"]
    norms = np.linalg.norm(H[rows == "train"], axis=1)
    logits = probe().decision(H[rows == "validation"])
    assert found.residual_norm == pytest.approx(np.median(norms))
    assert found.logit == pytest.approx(np.median(np.abs(logits)))


def test_one_massive_activation_does_not_move_the_unit():
    norms = np.full((101, 4), 50.0)
    norms[7] = 11_000.0 / 2
    assert median_norm(norms) == pytest.approx(100.0)


@pytest.mark.parametrize(("c", "k"), [(25.0, 1.0), (1.0, 9.0), (0.01, 0.2)])
def test_the_same_numbers_are_the_same_programs_at_any_scale(c, k):
    here, there = World(), World(c, k)
    mine, theirs = here.solved(), there.solved()
    assert (mine["status"] == "optimal").any() and (mine["status"] == "infeasible").any()
    for same in ("status", "l0", "strength", "strength_name", *PARTS[3:]):
        pd.testing.assert_series_equal(mine[same], theirs[same])
    for length in ("l1", "residual_norm", "epsilon"):
        np.testing.assert_allclose(theirs[length], c * mine[length], rtol=1e-9)
    np.testing.assert_allclose(theirs["tau"], k * mine["tau"])
    np.testing.assert_allclose(theirs["lam"], mine["lam"] / c)


def test_absolute_numbers_are_other_programs_at_another_scale():
    absolute = PROGRAMS.model_copy(update={"units": "absolute"})
    mine, theirs = World().solved(absolute), World(25.0).solved(absolute)
    assert not np.allclose(mine["l0"], theirs["l0"], equal_nan=True)


@pytest.mark.parametrize("units", ["model", "absolute"])
def test_every_row_of_a_program_has_both_units(units):
    settings = PROGRAMS.model_copy(update={"units": units})
    world = World()
    rows, one = world.solved(settings), world.units
    configured = rows["tau_model" if units == "model" else "tau"]
    assert set(configured) == {*settings.qp_tau, *settings.socp_tau}
    norm = one.residual_norm
    np.testing.assert_allclose(rows["tau"], one.logit * rows["tau_model"])
    np.testing.assert_allclose(rows["lam"], rows["lam_model"] / norm)
    np.testing.assert_allclose(rows["epsilon"], norm * rows["epsilon_model"])
    # The strength and its name are as configured.
    qp = rows[rows["method"] == "qp_optimal"]
    assert set(qp["strength"]) == set(settings.qp_tau)
    assert set(qp["strength_name"]) == {f"tau at lambda={lam:g}" for lam in settings.qp_lambda}


def test_without_units_the_numbers_stay_as_configured():
    (point, *_) = grid("qp_optimal", SETTINGS)
    assert (point.tau, point.tau_model) == (SETTINGS.qp_tau[0], None)
    assert World().units.in_both(GridPoint("caa", 0, "alpha", 1.0), "model").tau_model is None


def test_declared_programs_have_the_typical_logit_of_their_own_direction():
    plan = {"program": "qp", "mode": "uniform", "metric": "identity", "epsilon": None}
    plan |= {"feature_cost": "unit", "guards": None, "features": None}
    plan |= {"concept_direction": "mean_difference", "tau": [1.0], "qp_lambda": [10.0]}
    found = solve_declared(
        "mine", SimpleNamespace(**plan), EXAMPLES, H, probe(), DATA, decoder(), units="model"
    )
    validation = (EXAMPLES["split"] == "validation").to_numpy()
    typical = np.median(np.abs(H[validation] @ found.weight + found.bias))
    assert found.rows["tau"].tolist() == pytest.approx([typical] * len(H))
    assert set(found.rows["tau_model"]) == {1.0}
    assert (found.vectors[0] @ found.weight) == pytest.approx(typical)
    assert found.rows["lam"].iloc[0] == pytest.approx(10.0 / median_norm(DATA.residuals))


def test_variants_are_solved_in_the_same_units():
    def rows(world, **changed):
        settings = SETTINGS.model_copy(update={"variants": ["path"], "variant_rows": 5, **changed})
        return variants_of_test_rows(
            settings.model_copy(update={"subspace_components": 4, "subspace_directions": 2}),
            EXAMPLES[EXAMPLES["split"] == "train"],
            EXAMPLES.loc[EXAMPLES["split"] == "test", "example_id"].tolist(),
            residuals_of=world.of,
            features_of=lambda ids: sparse.csr_array(np.maximum(world.of(ids) @ decoder().T, 0)),
            probe=world.probe,
            evaluation_probe=world.probe,
            dictionary=Dictionary(decoder()),
            path=world.path,
            target_class=1,
            units=world.units,
        )

    mine, theirs = rows(World()), rows(World(25.0, 3.0))
    assert set(mine["tau_model"]) == {0.5} and set(mine["parameter_model"]) == {10.0, 0.5}
    pd.testing.assert_series_equal(mine["l0"], theirs["l0"])
    np.testing.assert_allclose(theirs["l1"], 25.0 * mine["l1"], rtol=1e-9)
    one = World().units
    absolute = rows(World(), units="absolute", variant_tau=one.logit / 2)
    assert set(absolute["tau_model"]) == {0.5} and 10.0 in set(absolute["parameter"])


def test_a_logit_of_zero_is_no_unit():
    with pytest.raises(DataError, match="set units to absolute"):
        ModelUnits(0.0, 1.0)
    with pytest.raises(DataError, match="half of the training residuals are 0"):
        ModelUnits(1.0, 0.0)


def test_the_papers_experiments_keep_the_papers_numbers():
    raw = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    for model in ("gpt2", "gemma", "gemma_it"):
        for task in ("sst2", "toxicity", "truthful"):
            found = resolve(raw, f"{model}_{task}").settings
            assert found.units == "absolute" and found.chat_template is False
            assert (found.qp_tau, found.qp_lambda) == ([0.5, 2.0, 4.0, 8.0], [0.1, 1.0])
            assert (found.socp_tau, found.socp_epsilon) == ([0.5, 4.0], [1.0, 3.0, 5.0, 10.0, 20.0])
    assert resolve(raw, "demo").settings.units == "model"


def test_the_demo_sets_no_margin_of_its_own():
    raw = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    demo, plain = resolve(raw, "demo").settings, Settings()
    assert demo.variant_tau == plain.variant_tau
    for name in ("qp_tau", "qp_lambda", "socp_tau", "socp_epsilon"):
        assert set(getattr(demo, name)) <= set(getattr(plain, name)), name
