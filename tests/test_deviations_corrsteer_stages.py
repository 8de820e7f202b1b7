"""Departures from the published CorrSteer code that only a stage or a rule could bring back.

The numbers are those of ``test_deviations_corrsteer.py``.
"""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from sae_lens import StandardSAE, StandardSAEConfig
from sae_lens.saes.sae import SAEMetadata
from safetensors.numpy import load_file
from stage_scripts import run_stage
from workflow_rules import CORRSTEER_JOB, ROOT, Rules, parse

sys.path.insert(0, str(ROOT / "tests" / "corrsteer"))

from corrsteer_world import SITE, word_rows, words_task

from steering_core.config.corrsteer_schema import Arm, CorrSteerSettings, SparseMethods
from steering_core.corrsteer import answers, kept_answers, sparse_methods
from steering_core.corrsteer.accumulate import Accumulators
from steering_core.corrsteer.answers import (
    Decoding,
    Session,
    open_session,
    undefined,
    write_answers,
)
from steering_core.corrsteer.examples import assign_splits, write_examples
from steering_core.corrsteer.plan import Plan
from steering_core.corrsteer.report import read_answers
from steering_core.corrsteer.scores import PooledStatistic
from steering_core.corrsteer.sparse_methods import SparseAnswers
from steering_core.corrsteer.success import SemanticSimilarity
from steering_core.corrsteer.tasks import Source
from steering_core.errors import ModelError
from steering_core.metrics.refusal import Refusal
from steering_core.models.sae_source import local_sae_revision
from steering_core.storage.arrays import save_arrays
from steering_core.storage.files import write_json

D_MODEL, D_SAE = 32, 6


@pytest.fixture(scope="module")
def rules() -> Rules:
    return parse()


def job_of(rules: Rules, name: str):
    return next(rule for rule in rules.rules if rule.name == name)


@pytest.fixture
def resources(tmp_path) -> Path:
    """What the fetch stage says of a real SAE at layer 1 whose decoder has a bias."""
    metadata = SAEMetadata(hook_name=SITE.hook_name, prepend_bos=True)
    sae = StandardSAE(StandardSAEConfig(d_in=D_MODEL, d_sae=D_SAE, metadata=metadata))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.copy_(3 * torch.randn(parameter.shape, generator=generator))
    sae.save_model(tmp_path / "sae" / "layer_1")
    found = {
        "model": {"revision": "r"},
        "saes": [{"layer": 1, "stream": "post", "centred": False, "prepend_bos": True}],
        "layers": [1],
        "layers_without_sae": [],
        "classifier": None,
        "sae_revision": local_sae_revision(model_of(tmp_path)["sae"], [1]),
    }
    write_json(tmp_path / "resources.json", found)
    return tmp_path / "resources.json"


def model_of(folder: Path) -> dict:
    from steering_core.config.model import SAESource

    return {"id": "unused", "sae": SAESource(path=str(folder / "sae" / "layer_{layer}"))}


def unit_rows(folder: Path, features) -> np.ndarray:
    """Decoder rows by the library's file alone, and its bias is not nought."""
    weights = load_file(folder / "sae" / "layer_1" / "sae_weights.safetensors")
    assert np.abs(weights["b_dec"]).max() > 1
    rows = weights["W_dec"][features]
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("seed", [0, 1])
def test_02_a_run_selects_and_evaluates_on_the_split_of_its_own_seed(
    tiny, tmp_path, resources, monkeypatch, rules, seed
):
    """Published: evaluation splits with seed 42, whatever the run was trained on."""
    loaded = Session(tiny, words_task(2), Decoding(2), None, False, {1: SITE})
    for module in (answers, kept_answers):
        monkeypatch.setattr(module, "open_session", lambda *args: loaded)
    texts = word_rows(60)
    items = texts.drop(columns=["split", "example_id"]).assign(
        item_id=texts["example_id"], source_split="test"
    )
    settings = CorrSteerSettings(train_rows=20)
    split = {s: assign_splits(items, Source("d", "test"), settings, s)[0] for s in (0, 1, 42)}
    tables = {s: rows.rename(columns={"item_id": "example_id"}) for s, rows in split.items()}
    write_examples(tmp_path / "examples.parquet", tables[seed].assign(n_tokens=3))
    files = {"resources": resources, "examples": tmp_path / "examples.parquet"}
    given = {"model": model_of(tmp_path), "task": {"task": "words"}, "settings": {}, "code": "c"}
    written = tmp_path / "answers-0.parquet"
    run_stage(
        "corrsteer_answer.py",
        tmp_path,
        input=files,
        output={"answers": written},
        params={**given, "arms": {"unsteered": None}, "validation_code": "v"},
        seed=str(seed),
        shard="0",
    )
    trained = {key: tmp_path / f"training.{key}" for key in ("selection", "answers", "snapshots")}
    run_stage(
        "corrsteer_select.py",
        tmp_path,
        input=files,
        output=trained,
        params={
            **given,
            "statistics": [str(PooledStatistic("raw"))],
            "histograms": [],
            "settings": {"shards": 1, "snapshots": [5], "published_mask": False},
        },
        seed=str(seed),
        shard="0",
    )
    tested, used = (
        set(pd.read_parquet(path)["example_id"]) for path in (written, trained["answers"])
    )
    mine = tables[seed].groupby("split")["example_id"].agg(set)
    assert tested == mine["test"] and used == mine["train"] and not tested & used
    for other in {0, 1, 42} - {seed}:
        assert tested != set(tables[other].query("split == 'test'")["example_id"])
    for stage in ("select", "validate", "answer", "fine_tune", "sparse_methods"):
        wanted = "results/{run}/corrsteer/seed-{seed}/examples.parquet"
        assert str(job_of(rules, f"corrsteer_{stage}").input.examples) == wanted


def test_09_the_decoders_bias_is_in_no_vector_of_a_plan(tmp_path, resources):
    """Published: a vector is what the SAE decodes a feature to, bias included."""
    rng = np.random.default_rng(0)
    success = rng.random(80) < 0.5
    values = rng.random((80, D_SAE))
    values[:, 4] += success
    made = Accumulators({(1, PooledStatistic()): D_SAE})
    made.parts[1, PooledStatistic()].update(torch.tensor(values), success)
    save_arrays(tmp_path / "selection.safetensors", made.to_arrays())
    arm = Arm(per_layer=2, scale=2.0)
    run_stage(
        "corrsteer_plan.py",
        tmp_path,
        input={"resources": resources, "selection": tmp_path / "selection.safetensors"},
        output={"plan": tmp_path / "plan.safetensors", "features": tmp_path / "plan.csv"},
        params={
            "model": model_of(tmp_path),
            "task": {"task": "mmlu"},
            "arm": arm.model_dump(),
            "settings": {"keep": 4, "min_outcomes": 1, "published_site": False},
        },
        seed="0",
    )
    plan = Plan.load(tmp_path / "plan.safetensors")
    steered = plan.features.query("steered")
    assert len(steered) == 2 and 4 in set(steered["feature"])
    rows = unit_rows(tmp_path, steered["feature"])
    expected = 2.0 * steered["coefficient"].to_numpy() @ rows
    np.testing.assert_allclose(plan.vectors[1], expected, rtol=1e-4, atol=1e-5)


def test_09_the_decoders_bias_is_in_no_row_of_the_sparse_methods(tmp_path, resources, monkeypatch):
    """The programs' dictionary is of the same rows."""
    seen = {}
    rows = word_rows(3)

    def recorded(run, method, settings, plan, rows_of, *splits, **options):
        seen["rows"] = rows_of(1, np.array([4, 2]))
        return SparseAnswers(undefined(rows, "not run"), pd.DataFrame({"strength": []}))

    monkeypatch.setattr(sparse_methods, "answer_sparse_method", recorded)
    monkeypatch.setattr(kept_answers, "open_session", lambda *args: None)
    write_examples(tmp_path / "examples.parquet", rows.assign(n_tokens=3))
    rows[["example_id"]].assign(success=True).to_parquet(tmp_path / "training.parquet")
    empty = Plan(pd.DataFrame(columns=["layer"]), {}, {}, {})
    monkeypatch.setattr(Plan, "load", lambda path: empty)
    run_stage(
        "corrsteer_sparse_methods.py",
        tmp_path,
        input={
            "resources": resources,
            "examples": tmp_path / "examples.parquet",
            "training": tmp_path / "training.parquet",
        } | {"plan": resources},
        output={"answers": tmp_path / "sparse_methods-0.parquet"},
        params={
            "model": model_of(tmp_path),
            "task": {"task": "words"},
            "settings": {"chat_template": False},
            "methods": ["qp_optimal", "caa_repe"],
            "sparse_methods": SparseMethods().model_dump(exclude={"methods", "programs", "fisher"}),
            "programs": {},
            "code": "c",
        },
        seed="0",
        shard="0",
    )  # fmt: skip
    np.testing.assert_allclose(seen["rows"], unit_rows(tmp_path, [4, 2]), rtol=1e-4, atol=1e-5)
    for method in ("qp_optimal", "caa_repe"):
        assert len(read_answers(tmp_path / "sparse_methods-0.parquet", method)) == len(rows)
        assert (tmp_path / f"validation/{method}.csv").read_text() == "strength\n"


def test_10_a_baseline_is_found_under_the_name_it_is_written_to(rules, tmp_path):
    """Published: the baseline is looked for under another name, and compared by position."""
    report = job_of(rules, "corrsteer_report")
    wanted = [str(path) for path in report.input["answers"](CORRSTEER_JOB)]
    names = [
        (s, m)
        for s in report.params["seeds"](CORRSTEER_JOB)
        for m in report.params["arms"](CORRSTEER_JOB)
    ]
    sharing = {"corrsteer_answer": "arms", "corrsteer_sparse_methods": "methods"}
    for path, (seed, method) in zip(wanted, names, strict=True):
        made = []
        for name, parameter in sharing.items():
            rule = job_of(rules, name)
            if match := rule.output.answers.match(path):
                job = SimpleNamespace(**match.groupdict())
                made += [(job.seed, one) for one in rule.params[parameter](job)]
        assert (str(seed), method) in made
    assert len(set(wanted)) == 2  # of all arms, and of all methods of optimal sparse steering
    rows = word_rows(4)
    paths = []
    for seed, right in ((3, {"unsteered": 1, "a": 4}), (5, {"unsteered": 2, "a": 3})):
        for method, n in right.items():
            answers = undefined(rows, "").assign(text="w", status="ok", success=np.arange(4) < n)
            paths.append(tmp_path / f"{seed}-{method}.parquet")
            write_answers(paths[-1], answers.iloc[:: -1 if method == "a" else 1])
    summaries = [tmp_path / f"{seed}.json" for seed in (3, 5)]
    for path in summaries:
        write_json(path, {"suggestion": ""})
    run_stage(
        "corrsteer_report.py",
        tmp_path,
        input={"answers": paths, "summaries": summaries},
        output={"table": tmp_path / "t.csv", "page": tmp_path / "p.html"},
        params={
            "seeds": [3, 5],
            "arms": ["unsteered", "a"],
            "settings": {"bootstrap_resamples": 20},
        },
        run="e",
    )
    table = pd.read_csv(tmp_path / "t.csv").set_index(["method", "seed"])
    for seed, before, after in (("3", 0.25, 1.0), ("5", 0.5, 0.75), ("all", 0.375, 0.875)):
        row = table.loc[("a", seed)]
        assert (row["baseline_accuracy"], row["accuracy"]) == (before, after)
        assert row["negative"] == 0  # of pairs by id


@pytest.mark.parametrize("success", [Refusal, SemanticSimilarity])
def test_10_a_classifier_that_does_not_load_is_an_error(hub, success):
    """Published: the failure is caught, and string comparison takes over."""
    with pytest.raises(ModelError):
        success(classifier="nobody/no-such-classifier").load("main", "cpu")
    task = {"task": "xstest" if success is Refusal else "simpleqa"}
    found = {"saes": [{"layer": 1, "stream": "post", "centred": False, "prepend_bos": True}]}
    given = CorrSteerSettings()
    with pytest.raises(ModelError, match="was not fetched"):
        open_session({}, task, given, {**found, "classifier": None})


#: Another value of every setting, and the stages that must run again for it.
ANSWERS = {"select", "validate", "answer", "fine_tune", "sparse_methods"}
OF_EACH_SETTING = [
    ("seeds", [7], {"report", "cell"}),
    (
        "arms",
        {"corrsteer_p": Arm(strategy="pruned", scale=3.0)},
        {"select", "plan", "answer", "report", "cell"},
    ),
    ("fine_tuning", {"method": "lora"}, {"fine_tune", "report"}),
    ("sparse_methods", {"features": 7}, {"sparse_methods"}),
    ("train_rows", 33, {"examples"}),
    ("validation_rows", 33, {"examples"}),
    ("test_rows", 33, {"examples"}),
    ("own_test_fraction", 0.33, {"examples"}),
    ("validation_share", 0.33, {"examples"}),
    ("max_tokens", 33, {"fetch"}),
    ("published_split", True, {"examples"}),
    ("long_prompts", "drop", {"examples", "fine_tune"}),
    ("few_shot", 3, {"examples"}),
    ("chain_of_thought", True, {"fetch", "examples", *ANSWERS}),
    ("restrict_options", True, ANSWERS),
    ("chat_template", True, {"examples", *ANSWERS}),
    ("published_prompt", True, {"fetch"}),
    ("new_tokens", 3, {"fetch", *ANSWERS}),
    ("layers", [1], {"fetch"}),
    ("published_site", True, {"plan", *ANSWERS}),
    ("published_mask", True, {"select"}),
    ("keep", 33, {"plan"}),
    ("min_outcomes", 3, {"plan"}),
    ("snapshots", [3], {"select"}),
    ("shards", 3, {"select", "answer", "sparse_methods"}),
    ("batch_rows", 3, ANSWERS),
    ("device", "cuda", ANSWERS),
    ("bootstrap_resamples", 33, {"report", "cell"}),
]


@pytest.mark.parametrize(("setting", "value", "stages"), OF_EACH_SETTING)
def test_12_results_of_another_setting_are_stale(rules, setting, value, stages):
    """Published: a result's name leaves settings out, so results of two are mixed."""
    kind = CorrSteerSettings.model_fields[setting].annotation
    if setting in ("sparse_methods", "fine_tuning"):
        value = kind(**value)
    stale = rules.stale_of_corrsteer(**{setting: value}) - {"corrsteer_planted_feature"}
    assert stale == {f"corrsteer_{stage}" for stage in {*stages, "provenance"}}


def test_12_every_setting_is_in_that_table_and_seed_and_arm_are_in_the_path(rules):
    assert {row[0] for row in OF_EACH_SETTING} == set(CorrSteerSettings.model_fields)
    for rule, name in (("corrsteer_plan", "arm"), ("corrsteer_answer", "shard")):
        for path in map(str, job_of(rules, rule).output):
            assert "/seed-{seed," in path and f"{{{name}," in path
