"""What ``make demo`` prints is read off the table, not written beforehand."""

from pathlib import Path

import pandas as pd
import pytest
from table_data import pareto_table

from steering_core.tables.frontier import frontier_flags
from steering_core.tables.frontier_verdict import frontier_verdict
from steering_core.tables.show import summary


def changed(**qp: float) -> pd.DataFrame:
    """The table with numbers of ``qp_optimal`` replaced and its frontier found again."""
    table = pareto_table()
    table.loc[table["method"] == "qp_optimal", list(qp)] = list(qp.values())
    return table.assign(on_frontier=frontier_flags(table))


def test_on_the_frontier_with_the_points():
    table = changed()
    rows = table[(table["method"] == "qp_optimal") & table["on_frontier"]]
    text = frontier_verdict(table, "qp_optimal")
    assert f"is on the frontier at {len(rows)} of 5 strengths" in text
    for _, row in rows.iterrows():
        point = f"tau {row['strength']:g} (KL {row['kl_mean']:.3g}, target rate "
        assert point + f"{row['classifier_rate_steered']:.3g})" in text


def test_off_the_frontier_with_what_beats_it():
    table = changed(kl_mean=50.0, classifier_rate_steered=0.2)
    text = frontier_verdict(table, "qp_optimal")
    best = table[table["method"] != "qp_optimal"].sort_values(
        ["classifier_rate_steered", "kl_mean"], ascending=[False, True]
    )
    assert text.startswith("qp_optimal is not on the frontier")
    assert f"is beaten by {best['method'].iloc[0]} at" in text


def test_off_the_frontier_because_it_does_not_compete():
    table = changed()
    table.loc[table["method"] == "qp_optimal", "on_frontier"] = pd.NA
    assert "none of its 5 strengths could steer every prompt" in frontier_verdict(
        table, "qp_optimal"
    )


def test_a_method_that_is_not_there():
    with pytest.raises(ValueError, match="no qp_adaptive"):
        frontier_verdict(pareto_table(), "qp_adaptive")


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


def test_without_a_selection_the_summary_says_what_it_shows(path: Path):
    pareto_table().assign(selected=pd.NA).to_csv(path, index=False)
    assert "the 13 with the highest target rate" in summary(path)


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
        "warning (caa_repe; convex_optimal epsilon=0.5 at tau=20, epsilon=4 at tau=20): "
        "mind the gap",
        "warning (no_steering alpha=0): nothing added",
    ]
