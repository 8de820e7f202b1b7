"""Published values, what they stand for, and measured values beside them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from steering_core.config.corrsteer_resolve import load_corrsteer, load_section
from steering_core.corrsteer.published import (
    FILES,
    Cell,
    cells,
    measure,
    methods_needed,
    table_of,
)
from steering_core.errors import ConfigError
from steering_core.tables.columns import column_names

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = ROOT / "resources" / "published"


@pytest.fixture(scope="module")
def raw():
    return yaml.safe_load((ROOT / "config.yaml").read_text())


@pytest.mark.parametrize("table", FILES)
def test_every_number_of_the_file_is_a_cell(table):
    frame = pd.read_csv(PUBLISHED / FILES[table])
    found = cells(table, PUBLISHED / FILES[table])
    assert len({cell.name for cell in found}) == len(found)
    numbers = frame.select_dtypes("number").drop(
        columns=["std_percent", "negative_changes", "positive_changes", "coefficient_scale"],
        errors="ignore",
    )
    values = sorted(v for v in numbers.to_numpy().ravel() if not np.isnan(v))
    assert sorted(c.published for c in found if c.published is not None) == values


def test_every_cell_has_an_experiment_and_an_arm(raw):
    experiments = load_corrsteer(raw)
    model = load_section(raw).tables_model
    for table, file in FILES.items():
        for cell in cells(table, PUBLISHED / file):
            settings = experiments[f"{model}_{cell.task}"].settings
            tuned = {"fine_tuning"} if settings.fine_tuning.method == "full" else set()
            assert cell.method in {"unsteered", *settings.arms} | tuned, cell


def test_a_known_cell():
    found = {cell.name: cell for cell in cells("accuracy", PUBLISHED / FILES["accuracy"])}
    cell = found["corrsteer_a-harmbench"]
    assert (cell.published, cell.published_std, cell.task) == (73.75, 8.84, "harmbench")
    base = found["no_steering-mmlu"]
    assert base.method == "unsteered" and methods_needed(base) == ["unsteered"]


def answers(success, gold="comply"):
    n = len(success)
    return pd.DataFrame(
        {
            "example_id": [f"t:{i}" for i in range(n)],
            "prompt": "p",
            "gold": gold,
            "n_options": None,
            "text": "x",
            "answer": ["comply" if s else "refuse" for s in success],
            "success": success,
            "status": "ok",
            "reason": "",
            "layers": [[1]] * n,
            "strength": "scale 1",
            "norm": 2.0,
            "n_features": 1,
        }
    )


def cell(metric, published=50.0):
    return Cell("scale", "r", "c", published, None, "xstest", "a", metric)


RUNS = {
    0: {
        "unsteered": answers([True, True, False, False]),
        "a": answers([True, False, True, True]),
    }
}


def test_measured_values_and_differences():
    row = measure(cell("accuracy"), "e", RUNS, n_resamples=50)
    assert row["measured"] == pytest.approx(75.0) and row["difference"] == pytest.approx(25.0)
    assert (row["negative"], row["positive"], row["n"], row["n_seeds"]) == (1, 2, 4, 1)
    row = measure(cell("accuracy_change", 10.0), "e", RUNS, n_resamples=50)
    assert row["measured"] == pytest.approx(25.0) and row["difference"] == pytest.approx(15.0)
    row = measure(cell("ser", 0.25), "e", RUNS, n_resamples=50)
    assert row["measured"] == pytest.approx(1 / 3)
    assert row["difference"] == pytest.approx(1 / 3 - 0.25)


def test_a_mean_of_side_effect_ratios_has_no_interval_of_another_number():
    """Seeds with few and many changes: their mean ratio lies outside the pooled interval."""
    few = {"unsteered": answers([True] * 100), "a": answers([False] + [True] * 99)}
    many = {"unsteered": answers([False] * 100), "a": answers([True] * 100)}
    row = measure(cell("ser", 0.25), "e", {0: few, 1: many}, n_resamples=50)
    assert row["measured"] == 0.5 and row["measured_std"] > 0
    assert row["measured_low"] is None and row["measured_high"] is None
    row = measure(cell("ser", 0.25), "e", {1: many}, n_resamples=50)
    assert row["measured"] == 0 and row["measured_low"] is not None


def test_over_refusal_is_of_harmless_prompts_alone():
    mixed = answers([True, False, True, True])
    mixed.loc[3, "gold"] = "refuse"
    before = answers([True] * 4)
    before.loc[3, "gold"] = "refuse"
    row = measure(cell("over_refusal"), "e", {0: {"unsteered": before, "a": mixed}}, n_resamples=50)
    assert row["n"] == 3 and row["measured"] == pytest.approx(100 / 3)


def test_what_is_not_configured_or_not_published_stays_empty():
    row = measure(cell("accuracy"), "e", None, n_resamples=50)
    assert row["status"] == "undefined" and "no method a in e" in row["reason"]
    assert row["measured"] is None and row["difference"] is None and row["published"] == 50.0
    row = measure(cell("accuracy", None), "e", RUNS, n_resamples=50)
    assert row["difference"] is None and row["measured"] == pytest.approx(75.0)
    assert table_of([row]).columns.tolist() == column_names("corrsteer_{table}")


def test_the_copies_are_those_of_the_source():
    source = ROOT.parent / "shared" / "published"
    if not source.is_dir():
        pytest.skip("../shared/published is absent")
    for file in FILES.values():
        assert (PUBLISHED / file).read_bytes() == (source / file).read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"few_shots": 2}, "few_shot"),
        ({"arms": {"x": {"strategy": "every"}}}, "strategy"),
        ({"arms": {"unsteered": {}}}, "name of another method"),
        ({"arms": {"qp_optimal": {}}}, "name of another method"),
        ({"arms": {"x": {"per_layer": 50}}}, "arms.x.per_layer is 50"),
        ({"sparse_methods": {"features": 50}}, "sparse_methods.features is 50"),
        ({"arms": {"x": {"space": "raw", "per_layer": "all"}}}, "both signs"),
        ({"restrict_options": True, "chain_of_thought": True}, "chain_of_thought"),
        ({"arms": {"x": {"per_layer": "all"}}}, "raw"),
        ({"arms": {"x": {"features_from": {"experiment": "gemma2b_mlu"}}}}, "gemma2b_mmlu"),
        ({"arms": {"x": {"features_from": {"experiment": "gemma2b_mmlu", "arm": "y"}}}}, "no fea"),
    ],
)
def test_wrong_settings_are_named(raw, change, message):
    section = {**raw["corrsteer"], "settings": {**raw["corrsteer"]["settings"], **change}}
    with pytest.raises(ConfigError, match=message):
        load_corrsteer({**raw, "corrsteer": section})


def test_top_level_settings_win_and_arms_are_merged_by_name(raw):
    tasks = {"mmlu": {"task": "mmlu", "settings": {"arms": {"caa": None, "mine": {"scale": 2}}}}}
    section = {**raw["corrsteer"], "tasks": tasks, "ablations": {}, "experiments": {}}
    found = load_corrsteer({**raw, "corrsteer": section, "train_rows": 7})["gemma2b_mmlu"]
    assert found.settings.train_rows == 7
    assert "caa" not in found.settings.arms and found.settings.arms["mine"].scale == 2
    assert "corrsteer_s" in found.settings.arms


def test_transfer_arms_follow_the_model_of_the_tables(raw):
    section = {**raw["corrsteer"], "tables_model": "llama8"}
    arms = load_corrsteer({**raw, "corrsteer": section})["llama8_mmlu_transfer"].settings.arms
    assert arms["from_mmlu_pro"].features_from.experiment == "llama8_mmlu_pro"
