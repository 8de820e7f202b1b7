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
    assert "warning: mind the gap" in lines
    assert lines[-1].startswith("look at: ") and lines[-1].count(str(path.parent)) == 2


def test_without_a_selection_the_summary_says_what_it_shows(path: Path):
    pareto_table().assign(selected=pd.NA).to_csv(path, index=False)
    assert "the 13 with the highest target rate" in summary(path)
