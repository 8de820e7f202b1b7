"""Declared programs and places inside a block do on a plain model what the experiment did."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from declared_world import DENSE, IDS, QP, SOCP, files_of, settings, write_declared
from export_world import DECODER, SITE, write_experiment

from steering_core import load_intervention
from steering_core.errors import DataError
from steering_core.exports.export import export_row
from steering_core.exports.formats import UnsayableError, block_vectors
from steering_core.generation.intervention import (
    Intervention,
    RowVectors,
    run_steered,
    steered_positions,
)
from steering_core.generation.steered_method import read_steered_method
from steering_core.methods.solution_vectors import ProgramLogit, write_plan, write_program
from steering_core.methods.solutions import write_solutions
from steering_core.models.site import Site
from steering_core.models.tokens import TokenBatch

COSTS = {"feature_cost": "fisher"}
#: Name: the program, its mode, the direction of its margin, its metric.
DECLARED = {
    "one_vector": (QP, "uniform", "mean_difference", "covariance"),
    "one_dense_vector": (DENSE, "uniform", "mean_difference", "identity"),
    "one_for_all": (SOCP, "shared", "probe", "identity"),
    "of_a_prompt": (QP, "static", "contrastive", "covariance"),
    "dense_of_a_prompt": (DENSE, "static", "mean_difference", "covariance"),
    "of_a_token": (SOCP, "adaptive", "probe", "covariance"),
    "plain_of_a_token": (QP, "adaptive", "mean_difference", "identity"),
    "at_costs": (QP | COSTS, "uniform", "probe", "fisher"),
    "at_costs_of_a_prompt": (QP | COSTS, "static", "mean_difference", "identity"),
    "on_two": (QP, "uniform", ["probe", "mean_difference"], "covariance"),
    "on_two_of_a_prompt": (QP, "static", ["probe", "mean_difference"], "covariance"),
    "dense_on_two_of_a_prompt": (DENSE, "static", ["probe", "mean_difference"], "fisher"),
}


@pytest.fixture(scope="module")
def experiment(finished, tiny, inputs, tmp_path_factory):
    where = tmp_path_factory.mktemp("declared") / "mine"
    declared = {name: settings(*how) for name, how in DECLARED.items()}
    return write_declared(finished, where, declared, tiny, inputs)


def own_logits(tiny, inputs, intervention):
    """Logits under the hooks of the experiment."""
    ids, mask = inputs["input_ids"], inputs["attention_mask"].bool()
    where = steered_positions(TokenBatch(ids, mask, ids == 1), intervention.positions)
    with torch.no_grad():
        return run_steered(tiny, intervention, where, lambda: tiny.model(**inputs).logits)[0]


@pytest.mark.parametrize("name", DECLARED)
def test_a_declared_program_does_what_the_experiment_did_before_and_after_its_export(
    experiment, tiny, inputs, tmp_path, name
):
    own = read_steered_method(
        name, files_of(experiment, name), SITE, positions="last", target_class=1,
        device=torch.device("cpu"),
    )  # fmt: skip
    wanted = own_logits(tiny, inputs, own.intervention(own.at(1, IDS)))
    with torch.no_grad():
        assert not torch.allclose(wanted, tiny.model(**inputs).logits, atol=1e-2)
    facts = export_row(experiment, name, tmp_path / "out")
    for steering in (load_intervention(experiment, name), load_intervention(tmp_path / "out")):
        with torch.no_grad(), steering.apply(tiny.model, tiny.tokenizer) as applied:
            found = tiny.model(**inputs).logits
        assert applied.unsolved() == 0
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)
    assert facts["strength_index"] == 1 and facts["selected"]


def test_the_export_says_direction_calibration_metric_and_positions(experiment, tmp_path):
    facts = export_row(experiment, "of_a_prompt", tmp_path / "out")
    assert (
        json.loads((tmp_path / "out" / "intervention.json").read_text())["margin"]
        == facts["margin"]
    )
    margin = facts["margin"]
    assert (margin["metric"], margin["feature_cost"]) == ("covariance", "unit")
    assert (margin["mode"], margin["tau"]) == ("static", 20.0)
    (logit,), (what,) = margin["on"], load_intervention(tmp_path / "out").at.values()
    assert logit["direction"] == "contrastive" and logit["calibrated_to_logits"]
    assert logit["logit_weight_norm"] == pytest.approx(np.linalg.norm(what.logit.weight))
    assert logit["logit_bias"] == what.logit.bias
    assert facts["positions"] == "last" and facts["program"]["parameter_name"] == "lambda"
    for consumer, said in facts["formats"].items():
        assert "refused" in said, consumer
    plain = export_row(experiment, "one_dense_vector", tmp_path / "dense")
    assert plain["features"] is None and plain["program"] is None
    assert plain["margin"]["mode"] == "uniform"


@pytest.mark.parametrize("name", ["one_vector", "one_for_all", "at_costs", "on_two"])
def test_the_features_of_one_vector_add_up_to_it(experiment, name):
    steering = load_intervention(experiment, name)
    (what,) = steering.at.values()
    total = sum(size * DECODER[feature] for feature, size in steering.facts["features"])
    np.testing.assert_allclose(total, what.vector, atol=1e-8)
    assert len(block_vectors(steering)) == 1  # other programs can add it


def test_a_shared_program_that_no_input_needs_adds_nothing_and_is_refused(experiment, tmp_path):
    where = tmp_path / "mine"
    shutil.copytree(experiment, where)
    file = where / "plans" / "one_for_all.parquet"
    rows = pd.read_parquet(file)
    write_solutions(rows.assign(status="already_satisfied"), file)
    arrays = where / "plans" / "one_for_all.safetensors"
    logit = ProgramLogit("socp", np.ones(32), 0.0, None, mode="shared")
    write_program(arrays, SITE, np.zeros((1, 32)), np.zeros(len(rows), int), logit)
    with pytest.raises(DataError, match="adds nothing at strength number 1"):
        load_intervention(where, "one_for_all")


def test_a_corrsteer_experiment_is_named_as_such(tmp_path):
    (tmp_path / "corrsteer.csv").write_text("")
    with pytest.raises(DataError, match=r"is a CorrSteer experiment.* under `plans`"):
        load_intervention(tmp_path, "corrsteer_a")


STREAMS = ["pre", "post", "mid", "attn_out", "mlp_out", "attn", "mlp"]


@pytest.mark.parametrize("stream", STREAMS)
def test_a_vector_at_any_place_is_added_as_in_the_experiment(
    tmp_path, tiny, tiny_model, inputs, stream
):
    site = Site(2, stream, False, True)
    where = write_experiment(tmp_path / "e", tiny_model, "all", site)
    steering = load_intervention(where, "caa_mean_diff")
    (what,) = steering.at.values()
    wanted = own_logits(tiny, inputs, Intervention({site: RowVectors(what.vector)}, "all"))
    outer = load_intervention(where, "a_plan")  # around it, another intervention on the same blocks
    with torch.no_grad(), steering.apply(tiny.model, tiny.tokenizer):
        torch.testing.assert_close(tiny.model(**inputs).logits, wanted, rtol=0, atol=1e-5)
        steered = tiny.model(**inputs).logits
        with outer.apply(tiny.model, tiny.tokenizer):
            assert not torch.allclose(tiny.model(**inputs).logits, steered, atol=1e-3)
    assert steering.facts["sites"][0]["transformer_lens"] == site.hook_name
    assert "of model.layers.2" in steering.facts["sites"][0]["transformers"]


def test_a_place_inside_a_block_is_found_under_another_intervention(tmp_path, tiny_model, inputs):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model)  # its places are not known yet
    site = Site(2, "mid", False, True)
    steering = load_intervention(
        write_experiment(tmp_path / "e", tiny_model, "all", site), "caa_mean_diff"
    )
    around = load_intervention(
        write_experiment(tmp_path / "around", tiny_model, "all"), "caa_mean_diff"
    )
    with torch.no_grad(), around.apply(model) as outer, steering.apply(model) as inner:
        model(**inputs)
    assert outer.passes == inner.passes == 1


@pytest.mark.parametrize("stream", ["mid", "attn_out", "attn", "mlp"])
def test_programs_that_add_between_blocks_cannot_say_a_place_inside_one(
    tmp_path, tiny_model, stream
):
    where = write_experiment(tmp_path / "e", tiny_model, site=Site(2, stream, False, True))
    facts = export_row(where, "single_feature", tmp_path / "out")
    for consumer, said in facts["formats"].items():
        if consumer == "features":
            assert said["file"]
        else:
            assert "inside a block" in said["refused"], consumer


def test_a_vector_at_the_mlps_output_is_one_at_the_blocks_output(
    tmp_path, tiny, tiny_model, inputs
):
    site = Site(2, "mlp_out", False, True)
    steering = load_intervention(
        write_experiment(tmp_path / "e", tiny_model, "all", site), "a_plan"
    )
    alone = load_intervention(tmp_path / "e", "caa_mean_diff")
    assert block_vectors(alone).keys() == {2}
    at_output = load_intervention(
        write_experiment(tmp_path / "post", tiny_model, "all"), "caa_mean_diff"
    )
    logits = []
    for one in (alone, at_output):
        with torch.no_grad(), one.apply(tiny.model, tiny.tokenizer):
            logits.append(tiny.model(**inputs).logits)
    torch.testing.assert_close(*logits, rtol=0, atol=1e-5)
    # Vectors at both places of a block are one vector at its output.
    (vector,) = alone.at.values()
    both = type(alone)({site: vector, SITE: vector}, alone.facts)
    np.testing.assert_allclose(block_vectors(both)[2], 2 * vector.vector)
    assert set(block_vectors(steering)) == {1, 2}


def test_a_plan_inside_blocks_is_applied_and_not_written_for_other_programs(
    finished, tiny, inputs, tmp_path
):
    where = tmp_path / "mine"
    shutil.copytree(finished, where)
    rng = np.random.default_rng(2)
    at = {Site(1, "attn_out", False, True): 2 * rng.standard_normal(32),
          Site(3, "mid", False, True): 2 * rng.standard_normal(32)}  # fmt: skip
    write_plan(where / "plans" / "a_plan.safetensors", at)
    rows = {site: RowVectors(2.0 * vector) for site, vector in at.items()}
    wanted = own_logits(tiny, inputs, Intervention(rows, "last"))
    steering = load_intervention(where, "a_plan")
    with torch.no_grad(), steering.apply(tiny.model, tiny.tokenizer):
        torch.testing.assert_close(tiny.model(**inputs).logits, wanted, rtol=0, atol=1e-5)
    with pytest.raises(UnsayableError, match="inside a block"):
        block_vectors(steering)
    # The mean residual norm is known at the experiment's own site alone.
    assert all(one["added_norm_relative"] is None for one in steering.facts["sites"])
