"""What the command prints is computed from the table, and from the files that Snakemake writes."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from table_data import pareto_table

from steering_core.errors import StorageError
from steering_core.tables.caveats import warnings_cell, warnings_in
from steering_core.tables.show import printed, stage_costs, summary
from steering_core.tables.words import frontier_verdict


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "pareto.svg").touch()
    (tmp_path / "generations.html").touch()
    return tmp_path / "pareto.csv"


def test_the_summary_quotes_a_row_a_method_and_the_verdicts(path: Path):
    table = pareto_table().assign(warnings="mind the gap")
    table.to_csv(path, index=False)
    text = summary(path)
    assert "selected on validation prompts" in text
    lines = text.splitlines()
    for method in table["method"].unique():
        quoted = [line for line in lines if line.split()[:1] == [method] and " is " not in line]
        assert len(quoted) == 1, method
    assert frontier_verdict(pd.read_csv(path), "qp_optimal") in lines
    assert "target rate without steering: 0.31" in lines
    assert "warning (every row): mind the gap" in lines
    assert lines[-1].startswith("look at: ") and lines[-1].count(str(path.parent)) == 2


def shown(text: str) -> list[list[str]]:
    """The rows of the printed table, as words."""
    lines = text.splitlines()
    end = next(i for i, line in enumerate(lines) if line.startswith("L0, norm and eval flips"))
    return [line.split() for line in lines[2:end]]


def test_without_a_selection_rows_are_not_sorted_by_rate(path: Path):
    table = pareto_table().assign(selected=pd.NA)
    table.to_csv(path, index=False)
    text = summary(path)
    assert "no strength was selected" in text and "n_validation_prompts" in text
    header = text.splitlines()[1].split()
    assert ["texts", "wordless"] == header[header.index("texts") :][:2]
    assert "highest" not in text
    assert [row[0] for row in shown(text)] == table["method"].tolist()
    table["classifier_rate_steered"] = table["classifier_rate_steered"].to_numpy()[::-1]
    table.to_csv(path, index=False)
    assert [row[:2] for row in shown(summary(path))] == [row[:2] for row in shown(text)]


@pytest.mark.parametrize("column", ["n_texts", "unsolved_positions"])
@pytest.mark.parametrize("selected", [True, pd.NA])
def test_a_row_that_lacks_texts_is_last_with_its_count(path: Path, column: str, selected):
    table = pareto_table().iloc[[0, 1, 6, 31, 36]].reset_index(drop=True)
    table = table.assign(selected=selected, n_texts=8, n_prompts=8)
    # What looks best has its rate from 2 of 8 prompts.
    table.loc[3, ["classifier_rate_steered", column]] = [1.0, 2]
    table.to_csv(path, index=False)
    rows = shown(summary(path))
    assert table["method"][3] == "qp_optimal" and rows[-1][0] == "qp_optimal"
    whole = "2/8" if column == "n_texts" else "8/8"
    assert whole in rows[-1] and all("8/8" in row for row in rows[:-1])
    assert "incomplete: the last 1 row could not steer every prompt" in summary(path)


def test_strengths_with_different_fixed_parameters_have_different_labels(path: Path):
    table = pareto_table()
    program = table["method"] == "qp_optimal"
    twice = [table[~program]]
    for lam in (0.1, 1):
        twice.append(table[program].assign(lam=lam, strength_name=f"tau at lambda={lam}"))
    pd.concat(twice).assign(selected=pd.NA).to_csv(path, index=False)
    text = summary(path)
    assert text.count("tau=4 at lambda=0.1") == text.count("tau=4 at lambda=1 ") == 1
    rows = [" ".join(row[:4]) for row in shown(text)]
    assert len(set(rows)) == len(rows)


def test_a_method_without_a_selected_strength_is_named(path: Path):
    table = pareto_table()
    table.loc[table["method"] == "caa_repe", "selected"] = False
    table.to_csv(path, index=False)
    text = summary(path)
    assert "no strength selected: caa_repe (" in text
    assert "caa_repe" not in [row[0] for row in shown(text)]


def test_norm_and_l0_are_over_the_rows_that_eval_flips_are_about(path: Path):
    table = pareto_table().assign(residual_norm_mean=1.0, residual_norm_outside_eval_mean=2.5)
    table.assign(l0_mean=3.0, l0_outside_eval_mean=7.25).to_csv(path, index=False)
    lines = summary(path).splitlines()
    assert "norm" in lines[1].split() and "L0" in lines[1].split()
    (quoted,) = [line.split() for line in lines if line.startswith(" ") and "caa_repe" in line]
    assert quoted[2:4] == ["7.25", "2.5"]
    (about,) = [line for line in lines if line.startswith("L0, norm and eval flips: test rows")]
    assert "residual_norm_outside_eval_mean" in about


def test_a_warning_names_its_rows_in_one_line(path: Path):
    table = pareto_table().astype({"warnings": object})
    program = table["method"] == "convex_optimal"
    table.loc[program, "strength_name"] = "epsilon at tau=20"
    some = program & table["strength"].isin([0.5, 4.0])
    table.loc[some | (table["method"] == "caa_repe"), "warnings"] = "mind the gap"
    table.loc[table["method"] == "no_steering", "warnings"] = "nothing added"
    table.to_csv(path, index=False)
    assert [line for line in summary(path).splitlines() if line.startswith("warning")] == [
        "warning (1 row: no_steering alpha=0): nothing added",
        "warning (7 rows: caa_repe; convex_optimal epsilon=0.5 at tau=20, epsilon=4 at tau=20): "
        "mind the gap",
    ]


def test_a_repeated_warning_is_shown_once(path: Path):
    table = pareto_table().assign(warnings=warnings_cell(["the judge; it is blind"]))
    rows = table.index[table["method"] == "qp_optimal"]
    for count, row in enumerate(rows[:3], start=2):
        own = ["the judge; it is blind", f"{count} of 28 inputs infeasible"]
        table.loc[row, "warnings"] = warnings_cell(own)
    table.to_csv(path, index=False)
    assert [line for line in summary(path).splitlines() if line.startswith("warning")] == [
        "warning (every row): the judge, it is blind",
        "warning (3 rows: qp_optimal tau=0, tau=0.5, tau=1): 2 to 4 of 28 inputs infeasible",
    ]


@pytest.mark.parametrize("cell", [None, float("nan"), ""])
def test_an_empty_cell_has_no_warning(cell):
    assert warnings_in(cell) == []


def test_warnings_come_out_of_a_cell_as_they_went_in():
    warnings = ["one", "two, and more", "one"]
    assert warnings_in(warnings_cell(warnings)) == ["one", "two, and more"]


ROOT = Path(__file__).resolve().parents[2]
HEADER = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"


def write(folder, name, seconds, rss, cpu):
    path = folder / "benchmarks" / f"{name}.tsv"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"{HEADER}{seconds}\t0:00:01\t{rss}\t1\t1\t1\t0.0\t0.0\t9.0\t{cpu}\n")


def test_jobs_of_a_stage_are_added_and_the_largest_memory_counts(tmp_path):
    write(tmp_path, "generate-qp_optimal", 3.0, 500.5, 2.5)
    write(tmp_path, "generate-no_steering", 4.0, 700.0, 3.5)
    write(tmp_path, "solve", 9.0, 100.0, 8.0)
    write(tmp_path, "pick_layer", 0.2, "NA", "NA")  # too short to be looked at
    costs = stage_costs(tmp_path).set_index("stage")
    assert costs.index.tolist() == ["solve", "generate", "pick_layer"]
    assert costs.loc["generate"].tolist() == [2, 7.0, 6.0, 700.0]
    assert costs.loc["pick_layer", "seconds"] == 0.2
    assert np.isnan(costs.loc["pick_layer", ["cpu_seconds", "peak_mb"]].astype(float)).all()


def test_the_command_tells_a_table_from_the_measurements(path: Path):
    pareto_table().to_csv(path, index=False)
    write(path.parent, "solve", 9.0, 100.0, 8.0)
    assert printed(path) == summary(path)
    costs = printed(path.parent / "benchmarks")
    assert "solve" in costs and printed(f"{path.parent}/benchmarks/") == costs


def test_no_files_or_damaged_ones(tmp_path):
    with pytest.raises(StorageError, match="run the experiment first"):
        stage_costs(tmp_path)
    write(tmp_path, "solve", "abc", 1, 1)
    with pytest.raises(StorageError, match=r"solve\.tsv"):
        stage_costs(tmp_path)
    (tmp_path / "benchmarks" / "solve.tsv").write_text("")
    with pytest.raises(StorageError, match=r"solve\.tsv"):
        stage_costs(tmp_path)


def test_every_stage_is_measured():
    """Every rule that runs a script, under the name of the rule."""
    rules = [
        rule
        for file in sorted((ROOT / "rules").glob("*.smk"))
        for rule in re.split(r"(?m)^(?=rule |use rule )", file.read_text("utf-8"))
        if rule.startswith("use rule ") or (rule.startswith("rule ") and "\n    script:" in rule)
    ]
    assert len(rules) > 30
    for rule in rules:
        name = re.match(r"(?:rule|use rule \w+ as) (\w+)", rule)[1]
        assert re.search(rf'\n    benchmark:\n        "[^"]+/benchmarks/{name}[-.][^"]*"', rule), (
            name
        )
