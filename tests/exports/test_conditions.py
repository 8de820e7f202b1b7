"""Guards and gates leave the pipeline: a plain model writes the tokens of the experiment."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from declared_world import (
    DENSE,
    IDS,
    QP,
    SOCP,
    add_settings,
    files_of,
    select,
    settings,
    write_declared,
)
from export_world import DECODER, DIRECTION, PROBE, SITE, TAU, UNIT, row

from steering_core import apply_all, load_intervention
from steering_core.errors import DataError
from steering_core.exports.export import export_row
from steering_core.exports.formats import UnsayableError, block_vectors
from steering_core.generation.decode import continuations
from steering_core.generation.sampling import Sampling
from steering_core.generation.steered_method import read_steered_method
from steering_core.methods.gates import Gate
from steering_core.methods.solution_vectors import ProgramLogit, read_plan, write_program
from steering_core.methods.solutions import write_solutions

GUARDS = [{"direction": "principal_components", "count": 2, "kappa": 0.02}]
#: Name: the program, its mode, the direction of its margin, its metric.
PROGRAMS = {
    "of_a_token": (QP, "adaptive", "probe", "identity"),
    "of_a_prompt": (QP, "static", "mean_difference", "covariance"),
    "socp_of_a_token": (SOCP, "adaptive", "probe", "covariance"),
    "dense_of_a_prompt": (DENSE, "static", "mean_difference", "covariance"),
    "on_two_of_a_prompt": (QP, "static", ["probe", "mean_difference"], "identity"),
    "on_two_of_a_token": (QP, "adaptive", ["probe", "mean_difference"], "covariance"),
    "on_two_for_all": (QP, "uniform", ["probe", "mean_difference"], "identity"),
    "for_all": (QP, "uniform", "probe", "covariance"),
    "one_for_all": (QP, "shared", "mean_difference", "identity"),
}
GUARDED = [f"guarded_{name}" for name in PROGRAMS]
#: Name: the method behind the gate.
GATED = {
    "gated_vector": "caa_mean_diff",
    "gated_adaptive": "qp_adaptive",
    "gated_of_a_prompt": "of_a_prompt",
    "gated_guarded": "guarded_of_a_token",
    "gated_for_all": "for_all",
}
NEW = 6


@pytest.fixture(scope="module")
def experiment(finished, tiny, inputs, tmp_path_factory):
    """The experiment with programs, each with and without guards, and gates on some of them."""
    where = tmp_path_factory.mktemp("conditions") / "mine"
    declared = {name: settings(*how) for name, how in PROGRAMS.items()}
    declared |= {f"guarded_{name}": settings(*how, GUARDS) for name, how in PROGRAMS.items()}
    write_declared(finished, where, declared, tiny, inputs)
    with torch.no_grad():
        states = tiny.model(**inputs, output_hidden_states=True).hidden_states[SITE.layer + 1]
    real = states[inputs["attention_mask"].bool()].double().numpy()
    below = float(np.median(real @ PROBE.weight_vector + PROBE.bias))
    of_feature = Gate(DECODER[5], -float(np.median(real @ DECODER[5])))
    on_probe = Gate.probe_below(PROBE.weight_vector, PROBE.bias, below)
    gated = {}
    for name, behind in GATED.items():
        on_feature = name == "gated_of_a_prompt"
        condition = {"probe_below": None if on_feature else below}
        condition |= {"feature": 5 if on_feature else None, "above": 0.1 if on_feature else None}
        gated[name] = {"method": behind, "gate": condition}
        rows, vectors, index, logit = what_is_behind(where, behind)
        gate = of_feature if on_feature else on_probe
        write_program(where / "plans" / f"{name}.safetensors", SITE, vectors, index, logit, gate)
        write_solutions(rows.assign(method=name), where / "plans" / f"{name}.parquet")
        select(where, name, rows)
    add_settings(where, "gated", gated)
    return where


def what_is_behind(where, method):
    """Return the rows, vectors and logit of a method, as the rule of gates reads them."""
    if method == "caa_mean_diff":
        rows = [row(method, k, a, "fixed") | {"example_id": e}
                for k, a in enumerate((0.1, 0.5)) for e in IDS]  # fmt: skip
        vectors = UNIT * np.outer([0.1, 0.5], DIRECTION)
        return pd.DataFrame(rows), vectors, np.repeat([0, 1], 3), None
    if method == "qp_adaptive":
        rows = [row(method, 0, TAU, "optimal", tau=TAU, lam=1.0) | {"example_id": e} for e in IDS]
        logit = ProgramLogit("qp", PROBE.weight_vector, PROBE.bias, None)
        return pd.DataFrame(rows), np.zeros((1, 32)), np.zeros(3, int), logit
    plan = read_plan(*(files_of(where, method)[name] for name in ("solutions", "plan")), method)
    index = plan.rows["vector"].to_numpy()
    return plan.rows.drop(columns="vector"), plan.vectors[SITE], index, plan.logit


def own_tokens(experiment, tiny, inputs, name, positions):
    """The tokens of the experiment itself, and at how many positions something was added."""
    own = read_steered_method(
        name, files_of(experiment, name), SITE, positions=positions, target_class=1,
        device=torch.device("cpu"),
    )  # fmt: skip
    mask = inputs["attention_mask"].bool()
    prompts = [ids[real].tolist() for ids, real in zip(inputs["input_ids"], mask, strict=True)]
    last = max(own.points())
    return continuations(
        tiny, prompts, IDS, Sampling(NEW, None), prepend_bos=True,
        intervention=own.intervention(own.at(last, IDS)),
    )  # fmt: skip


def tokens(tiny, inputs, **more):
    options = {"do_sample": False, "max_new_tokens": NEW, "pad_token_id": 0, **more}
    return tiny.model.generate(**inputs, **options)[:, inputs["input_ids"].shape[1] :].tolist()


def without(name):
    """Return the same program without guards, or the method without the gate."""
    return GATED.get(name, name.removeprefix("guarded_"))


@pytest.mark.parametrize("name", [*GUARDED, *GATED])
def test_a_plain_model_writes_the_tokens_of_the_pipeline(experiment, tiny, inputs, tmp_path, name):
    export_row(experiment, name, tmp_path / "out")
    exported, loaded = load_intervention(tmp_path / "out"), load_intervention(experiment, name)
    free, differs = load_intervention(experiment, without(name)), []
    for positions in ("last", "all"):
        own = own_tokens(experiment, tiny, inputs, name, positions)
        for steering in (loaded, exported):
            with steering.apply(tiny.model, tiny.tokenizer, positions=positions) as applied:
                found = [tokens(tiny, inputs, use_cache=cache) for cache in (True, False)]
            assert applied.unsolved() == 0 == own.unsolved.sum()
            function = steering.custom_generate(tiny.tokenizer, positions=positions)
            found.append(tokens(tiny, inputs, custom_generate=function))
            with apply_all([steering], tiny.model, tiny.tokenizer, positions=positions):
                found.append(tokens(tiny, inputs))
            for one in found:
                assert [row[: len(new)] for row, new in zip(one, own.tokens, strict=True)] == [
                    list(new) for new in own.tokens
                ]
        if name in GATED:
            assert 0 < own.added.sum() < own.steered.sum()
        with torch.no_grad():
            logits = []
            for steering in (loaded, free):
                with steering.apply(tiny.model, tiny.tokenizer, positions=positions):
                    logits.append(tiny.model(**inputs).logits)
        differs.append(not torch.allclose(*logits, atol=1e-3))
    assert any(differs)  # the guards bind, and the gate is shut somewhere


@pytest.mark.parametrize("name", ["of_a_token", "of_a_prompt", "dense_of_a_prompt"])
def test_no_guard_is_exceeded_on_a_plain_model(experiment, tiny, inputs, name):
    steering = load_intervention(experiment, f"guarded_{name}")
    (what,) = steering.at.values()
    guards = what.logit.guards
    plain = tiny.model(**inputs, output_hidden_states=True).hidden_states[SITE.layer + 1]
    over = []
    for one in (steering, load_intervention(experiment, name)):
        seen = []
        handle = tiny.blocks[SITE.layer + 1].register_forward_pre_hook(
            lambda _, args, seen=seen: seen.append(args[0])
        )
        try:
            with torch.no_grad(), one.apply(tiny.model, tiny.tokenizer):
                tiny.model(**inputs)
        finally:
            handle.remove()
        added = (seen[0] - plain)[:, -1].detach().double().numpy()
        over.append(guards.over(added).max() / guards.kappa.max())
    assert over[0] < 1e-2 and over[1] > 0.1


def test_the_export_says_guards_and_their_bounds(experiment, tmp_path):
    facts = export_row(experiment, "guarded_of_a_prompt", tmp_path / "out")
    said = facts["margin"]["guards"]
    assert [(guard["name"], guard["kappa"]) for guard in said] == [
        ("component 1", 0.02), ("component 2", 0.02)
    ]  # fmt: skip
    (what,) = load_intervention(tmp_path / "out").at.values()
    norms = np.linalg.norm(what.logit.guards.directions, axis=1)
    np.testing.assert_allclose([guard["direction_norm"] for guard in said], norms)
    for consumer, one in facts["formats"].items():
        assert "another vector for each prompt" in one["refused"] or consumer in (
            "features", "lm-evaluation-harness"
        )  # fmt: skip


@pytest.mark.parametrize(
    "name", ["guarded_for_all", "guarded_one_for_all", "guarded_on_two_for_all"]
)
def test_one_guarded_vector_leaves_in_every_format_with_its_features(experiment, tmp_path, name):
    facts = export_row(experiment, name, tmp_path / "out")
    (vector,) = block_vectors(load_intervention(tmp_path / "out")).values()
    total = sum(size * DECODER[feature] for feature, size in facts["features"])
    np.testing.assert_allclose(total, vector, atol=1e-4)
    assert facts["formats"]["llama.cpp"]["file"] and facts["margin"]["guards"]


def test_the_export_says_its_gate_and_other_formats_refuse_it(experiment, tmp_path):
    facts = export_row(experiment, "gated_of_a_prompt", tmp_path / "feature")
    assert facts["gate"]["condition"] == {"feature": 5, "above": 0.1}
    facts = export_row(experiment, "gated_vector", tmp_path / "out")
    read = json.loads((tmp_path / "out" / "intervention.json").read_text())["gate"]
    assert read == facts["gate"] and read["behind"] == "caa_mean_diff"
    assert read["condition"].keys() == {"probe_below"}
    assert facts["operation"].endswith("where the gate is open")
    for consumer, said in facts["formats"].items():
        assert "only where a gate is open (probe_below: " in said["refused"], consumer
        assert "export caa_mean_diff" in said["refused"]
    with pytest.raises(UnsayableError, match="gate is open"):
        block_vectors(load_intervention(tmp_path / "out"))


def test_a_gated_row_that_is_not_there_is_refused(experiment):
    with pytest.raises(DataError, match="has no strength 9"):
        load_intervention(experiment, "gated_vector", 9.0)
