"""What is said of rows of the tables is computed from the tables."""

import numpy as np
import pandas as pd
import pytest
from table_data import pareto_table

from steering_core.tables.pareto import frontier_flags
from steering_core.tables.words import frontier_verdict, interval, readable_strength


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("alpha", 0.5, "α = 0.5"),
        ("tau at lambda=1", 10.0, "λ = 1, τ = 10"),
        ("epsilon at tau=10", 14.0, "τ = 10, ε = 14"),
        (None, 0.25, "0.25"),
        ("tau", np.nan, ""),
        ("other", 2.0, "other = 2"),
    ],
)
def test_strengths_are_written_with_their_symbols(name, value, shown):
    assert readable_strength(name, value) == shown


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
        point = f"τ = {row['strength']:g} (KL {row['kl_mean']:.3g}, target rate "
        sure = f", on it in {row['frontier_probability']:.0%} of resamples of the prompts)"
        assert point + f"{row['classifier_rate_steered']:.3g}{sure}" in text


def test_a_method_off_the_frontier_is_shown_with_the_row_that_beats_it():
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


def test_a_method_off_the_frontier_is_shown_at_its_selected_strength():
    table = changed(kl_mean=50.0, classifier_rate_steered=0.2)
    rows = table.index[table["method"] == "qp_optimal"]
    table.loc[rows[2], "classifier_rate_steered"] = 0.25
    table["selected"] = table.index == rows[4]
    text = frontier_verdict(table.assign(on_frontier=frontier_flags(table)), "qp_optimal")
    assert "its selected strength, τ = 4 (KL 50, target rate 0.2), is beaten by" in text
    table.loc[rows, "kl_mean"] = [50.0, 40.0, 60.0, 70.0, 80.0]
    table = table.assign(selected=pd.NA, on_frontier=frontier_flags(table))
    text = frontier_verdict(table, "qp_optimal")
    assert "its strength with the least KL, τ = 0.5 (KL 40, target rate 0.2)" in text
    assert text.endswith("over 50 prompts.") and "highest" not in text


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.5, 2.0, "95 % interval 0.5 to 2"),
        (0.5, np.nan, "95 % interval from 0.5 upwards, without an end"),
        (0.0, 2.0, "95 % interval up to 2"),
        (0.0, np.nan, "95 % interval without ends"),
        (np.nan, np.nan, "no interval"),
    ],
)
def test_an_interval_without_an_end_is_said_to_have_none(low, high, said):
    row = pd.Series({"kl_ratio_ci_low": low, "kl_ratio_ci_high": high})
    assert interval(row, "kl_ratio") == said
