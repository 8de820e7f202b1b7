"""The command line of a run: what it gives, what it asks for, and what is refused."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import yaml
from snakemake.cli import parse_config
from snakemake.utils import update_config
from workflow_rules import CONFIG

from steering_core.config.corrsteer_resolve import load_corrsteer, resolve_corrsteer
from steering_core.config.requests import (
    CORRSTEER,
    EXPERIMENT_KINDS,
    PARETO,
    check_export,
    check_options,
    check_top_level,
    files_made,
    refuse_unknown_target,
    requested_experiments,
    with_nulls,
)
from steering_core.config.resolve import load_config, resolve
from steering_core.corrsteer.read_items import configured_task
from steering_core.corrsteer.tasks import OPTIONS
from steering_core.errors import ConfigError

RUNS = load_corrsteer(CONFIG)
TABLE_RUNS = ["gemma2b_xstest", "gemma2b_mmlu", "gemma2b_mmlu_pooling"]


# -------------------------------------------------------------------------- command line
def configured(*entries):
    """The configuration after ``--config`` with these entries, as Snakemake reads them."""
    overrides, config = parse_config(entries), copy.deepcopy(CONFIG)
    update_config(config, overrides)
    return with_nulls(config, overrides)


@pytest.mark.parametrize("word", ["null", "~", "NULL"])
def test_null_on_the_command_line_leaves_out_an_arm(word):
    name, sections = "demo_praise_all", "settings: {arms: {caa: %s, corrsteer_p: {scale: 2}}}"
    config = configured("corrsteer={experiments: {demo_praise_all: {%s}}}" % (sections % word))
    arms = resolve_corrsteer(config, name).settings.arms
    assert "caa" not in arms and arms["corrsteer_p"].scale == 2.0
    assert "corrsteer_s" in arms


def test_null_at_top_level():
    mmlu = resolve_corrsteer(configured("test_rows=null"), "gemma2b_mmlu")
    praise = resolve_corrsteer(configured("new_tokens=null"), "demo_praise")
    assert mmlu.settings.test_rows is None
    assert praise.settings.new_tokens is None


def test_null_for_a_setting_that_does_not_take_it_is_refused_by_name():
    for entry in ("rows_per_class=null", "strengths=[0.5, null]", "settings={topk: null}"):
        key = entry.split("=")[0].replace("settings", "topk")
        with pytest.raises(ConfigError, match=rf"{key}.*got null"):
            load_config(configured(entry))


def test_nulls_in_files_stay_as_they_are():
    config = {"a": "null", "b": {"c": "null", "d": ["null"]}}
    assert with_nulls(config, {}) == config
    assert with_nulls(config, {"b": {"c": "null"}}) == {
        "a": "null",
        "b": {"c": None, "d": ["null"]},
    }
    assert with_nulls(yaml.safe_load("{a: [1, x]}"), {"a": ["1", "x"]}) == {"a": [1, "x"]}


# ----------------------------------------------------------------- requested experiments
@pytest.mark.parametrize(
    ("targets", "kinds"),
    [
        ([], {PARETO}),
        (["demo"], {PARETO}),
        (["results/demo/pareto.csv"], {PARETO}),
        (["results/demo_praise/corrsteer.csv"], {CORRSTEER}),
        (["/scratch/results/gemma2b_mmlu/provenance.json"], {CORRSTEER}),
        (["corrsteer_tables"], {CORRSTEER}),
        (["results/tables/corrsteer_ser.csv"], {CORRSTEER}),
        (["all", "corrsteer"], {PARETO, CORRSTEER}),
    ],
)
def test_kinds_of_the_requested_experiments(targets, kinds):
    assert requested_experiments(targets, RUNS, TABLE_RUNS).kinds == kinds


@pytest.mark.parametrize(
    ("target", "runs"),
    [
        ("results/demo/pareto.csv", set()),
        ("results/demo_praise/corrsteer.csv", {"demo_praise"}),
        ("corrsteer", set(RUNS)),
        ("corrsteer_tables", set(TABLE_RUNS)),
        ("results/tables/corrsteer_ser.csv", set(TABLE_RUNS)),
        # An arm of this experiment uses features of another one.
        ("results/gemma2b_mmlu_from_pt/x", {"gemma2b_mmlu_from_pt", "gemma2b_pt_mmlu"}),
    ],
)
def test_requested_experiments_of_corrsteer(target, runs):
    assert requested_experiments([target], RUNS, TABLE_RUNS).runs.keys() == runs


@pytest.mark.parametrize(
    ("key", "kind", "near"),
    [("seeds", PARETO, "'seed'"), ("seed", CORRSTEER, "'seeds'"), ("few_shot", PARETO, "")],
)
def test_a_setting_that_no_requested_experiment_reads_is_refused_with_the_nearest(key, kind, near):
    with pytest.raises(ConfigError, match=f"^{key} applies only to .* makes none.*{near}"):
        check_top_level([key], [key], {kind})
    # A configuration file serves many runs, so there the same setting is a warning.
    (warning,) = check_top_level([key], [], {kind})
    assert key in warning and f"ignored for {kind}" in warning


def test_with_both_kinds_a_setting_of_one_kind_is_a_warning():
    keys = ["seeds", "seed", "layer", "device", "demo_world"]
    warnings = check_top_level(keys, keys, {PARETO, CORRSTEER})
    assert [warning.split(":")[0] for warning in warnings] == ["seeds", "seed, layer"]


@pytest.mark.parametrize("kind", EXPERIMENT_KINDS)
def test_shared_settings_and_sections_pass(kind):
    keys = ["device", "new_tokens", "bootstrap_resamples", "models", "corrsteer"]
    assert check_top_level(keys, keys, {kind}) == []


def check(*targets, **overrides):
    runs = requested_experiments(targets, RUNS, TABLE_RUNS).runs
    tasks = {name: configured_task(run.task) for name, run in runs.items()}
    check_options(overrides, runs, tasks, OPTIONS)


def test_an_option_that_one_requested_experiment_supports_passes():
    check("corrsteer_tables", published_prompt=True, restrict_options=True)
    check("corrsteer", published_prompt=True)
    check("results/tables/corrsteer/ser/x.json", restrict_options=True)
    check("results/gemma2b_xstest/corrsteer.csv", published_prompt=True)
    check("results/gemma2b_mmlu/corrsteer.csv", published_prompt=False, few_shot=2)
    check("results/gemma2b_xstest/corrsteer.csv", published_split=True)
    check("results/gemma2b_mmlu_pooling/corrsteer.csv", published_mask=True)
    check("corrsteer_tables", published_mask=True)
    # Rows in a local file have no test split, so their task splits itself.
    mine = RUNS["gemma2b_gsm8k"]
    mine = replace(mine, task=mine.task.model_copy(update={"dataset": "mine.jsonl"}))
    tasks = {"mine": configured_task(mine.task)}
    check_options({"published_split": True}, {"mine": mine}, tasks, OPTIONS)
    # Its arms use features that are selected on MMLU.
    check("results/gemma2b_xstest_scaled/corrsteer.csv", published_prompt=True)


@pytest.mark.parametrize(
    ("target", "option"),
    [
        ("results/gemma2b_mmlu/corrsteer.csv", "published_prompt"),
        ("results/gemma2b_gsm8k/corrsteer.csv", "restrict_options"),
        ("results/gemma2b_gsm8k/corrsteer.csv", "published_split"),
        ("results/gemma2b_gsm8k/corrsteer.csv", "published_mask"),
    ],
)
def test_an_option_that_no_requested_experiment_supports_is_refused(target, option):
    with pytest.raises(ConfigError, match=f"{option} would have no effect on this run"):
        check(target, **{option: True})


# ----------------------------------------------------------------------- unknown targets
MADE = files_made(
    [
        "results/{experiment}/pareto.csv",
        "results/{experiment}/paths/{family}.safetensors",
        "results/{experiment}/paths",
        "results/{run}/corrsteer.csv",
        "results/tables/corrsteer_{table}.csv",
        "results/demo/corpus.parquet",
    ],
    {"experiment": ["demo", "gpt2_sst2"], "run": ["gemma2b_mmlu"], "table": ["ser", "scale"]},
)


def test_files_directly_in_a_folder_are_known_by_experiment():
    assert MADE == {
        "demo": [f"results/demo/{file}" for file in ("pareto.csv", "paths", "corpus.parquet")],
        "gpt2_sst2": ["results/gpt2_sst2/pareto.csv", "results/gpt2_sst2/paths"],
        "gemma2b_mmlu": ["results/gemma2b_mmlu/corrsteer.csv"],
        "tables": ["results/tables/corrsteer_ser.csv", "results/tables/corrsteer_scale.csv"],
    }


def test_a_method_that_adds_nothing_or_is_not_run_is_not_exported():
    settings = resolve(CONFIG, "demo").settings
    check_export("qp_optimal", settings)
    check_export("mean_difference_qp", settings)
    for name in ("no_steering", "prompting"):
        with pytest.raises(ConfigError, match=f"{name} adds no vector"):
            check_export(name, settings)
    behind = settings.model_copy(update={"gated": {"shut": SimpleNamespace(method="caa_repe")}})
    check_export("shut", behind)
    with pytest.raises(ConfigError, match="did you mean 'shut'"):
        check_export("shot", behind)
    others = settings.model_copy(update={"methods": ["caa_repe"]})
    with pytest.raises(ConfigError, match="no method qp_optimal to export"):
        check_export("qp_optimal", others)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("demo/pareto.cvs", "did you mean pareto.csv"),
        ("tables/corrsteer_sre.csv", "did you mean corrsteer_ser.csv"),
        ("demo/exports/qp_optimum", "no method qp_optimum to export .did you mean 'qp_optimal'"),
        ("gpt2_sst/exports/qp_optimal", "did you mean 'gpt2_sst2'"),
        ("demo/a.b", "there are corpus.parquet, pareto.csv"),
        ("gpt2_sst/pareto.csv", "did you mean 'gpt2_sst2'"),
        ("gemma2b_mml/corrsteer.csv", "did you mean 'gemma2b_mmlu'"),
    ],
)
def test_an_unknown_target_is_answered_with_the_nearest(target, message):
    with pytest.raises(ConfigError, match=message):
        refuse_unknown_target(f"results/{target}", CONFIG, MADE)
