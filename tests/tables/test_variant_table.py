"""Counts, means and paired ratios of the variants, and their picture."""

import io

import numpy as np
import pandas as pd
import pytest

from steering_core.methods.variants import COLUMNS
from steering_core.tables.columns import column_names, validate_table
from steering_core.tables.variants import variant_figure, variant_table


def rows(variant="path", objective=(2.0, 4.0, 6.0), status=("optimal",) * 3, **more):
    solved = np.isin(status, ["optimal", "already_satisfied", "inaccurate"])
    objective = np.where(solved, objective, np.nan)
    frame = pd.DataFrame(
        {
            "variant": variant,
            "program": "qp",
            "tau": 0.5,
            "tau_model": 0.25,
            "parameter": 1.0,
            "parameter_model": 10.0,
            "example_id": ["a", "b", "c"],
            "status": status,
            "objective": objective,
            "dual_objective": objective,
            "relative_gap": np.where(solved, [1e-12, 3e-9, 2e-3], np.nan),
            "dual_violation": np.where(solved, [0.0, 1e-10, 1e-11], np.nan),
            "l1": objective / 2,
            "residual_norm": objective / 4,
            "l0": np.where(solved, [3.0, 4.0, 5.0], np.nan),
            "iterations": np.nan if variant == "path" else [10.0, 20.0, 30.0],
            "rounds": np.nan if variant == "path" else [1.0, 2.0, 3.0],
            "inner": "" if variant == "path" else ["osqp", "clarabel", "osqp"],
            "eval_probe_base": [-1.0, -1.0, 0.5],
            "eval_probe_steered": np.where(np.array(status) == "optimal", [1.0, 1.0, 2.0], np.nan),
        }
    )
    return frame.assign(**more)[[*COLUMNS, "tau_model", "parameter_model"]]


def table(*frames):
    return variant_table(pd.concat(frames), "e", n_resamples=50).set_index("variant")


def test_the_plain_program_is_its_own_measure():
    row = table(rows()).loc["path"]
    assert (row["n"], row["n_optimal"], row["n_infeasible"], row["n_paired"]) == (3, 3, 0, 3)
    assert row["objective_mean"] == 4.0 and row["objective_ratio"] == 1.0
    assert row["objective_ci_low"] < 4.0 < row["objective_ci_high"]
    assert (row["l0_mean"], row["l1_mean"], row["residual_norm_mean"]) == (4.0, 2.0, 1.0)
    assert row["relative_gap_max"] == 2e-3 and row["dual_violation_max"] == 1e-10
    assert row[["iterations_mean", "rounds_mean", "inner_solvers"]].isna().all()
    assert row["eval_flip_rate"] == 1.0  # of the two that start outside


def test_ratios_are_over_the_inputs_that_both_solved():
    statuses = ("optimal", "infeasible", "inaccurate")
    row = table(rows(), rows("signed", (1.0, 9.0, 9.0), statuses)).loc["signed"]
    assert row[["n_optimal", "n_infeasible", "n_inaccurate", "n_failed"]].tolist() == [1, 1, 1, 0]
    assert row["objective_mean"] == 1.0 and row["n_paired"] == 1
    assert row["objective_ratio"] == 0.5  # 1 of 2, whatever the others would have been
    assert row["l1_ratio"] == row["residual_norm_ratio"] == 0.5
    assert row["relative_gap_max"] == 2e-3  # the inaccurate one is not hidden
    assert row["eval_flip_rate"] == 0.5  # one was not solved: not flipped
    assert (row["iterations_mean"], row["rounds_mean"]) == (20.0, 2.0)
    assert row["inner_solvers"] == "osqp 2"


def test_cells_are_empty_where_nothing_was_solved():
    none = rows("box", status=("infeasible", "infeasible", "failed"))
    row = table(rows(), none).loc["box"]
    assert (row["n_infeasible"], row["n_failed"], row["n_paired"]) == (2, 1, 0)
    assert row[["objective_mean", "l0_mean", "objective_ratio", "relative_gap_max"]].isna().all()
    assert row["eval_flip_rate"] == 0.0


def test_satisfied_rows_have_zero_cost_and_are_not_in_the_mean_of_iterations():
    status = ("already_satisfied", "optimal", "optimal")
    frame = rows("subspace", (0.0, 4.0, 6.0), status, tau=np.nan)
    row = table(rows(), frame).loc["subspace"]
    assert np.isnan(row["tau"]) and row["n_satisfied"] == 1
    assert row["objective_ratio"] == pytest.approx(10 / 12)
    assert row["iterations_mean"] == 25.0
    assert row["inner_solvers"] == "clarabel 1, osqp 1"


def test_the_table_keeps_to_its_columns_also_after_csv():
    made = table(rows(), rows("signed")).reset_index()
    made = made[column_names("variants")]
    again = pd.read_csv(io.StringIO(made.to_csv(index=False)))
    validate_table(again, "variants")


def test_ratios_of_size_are_paired_and_their_own():
    cheaper = rows("signed", (1.0, 2.0, 3.0), l1=[0.5, 1.0, 3.0], residual_norm=[0.5, 1.0, 0.75])
    row = table(rows(), cheaper).loc["signed"]
    assert row["objective_ratio"] == 0.5
    assert row["l1_ratio"] == pytest.approx(4.5 / 6)
    assert row["residual_norm_ratio"] == pytest.approx(2.25 / 3)
    assert row["l1_ratio_ci_low"] < row["l1_ratio"] < row["l1_ratio_ci_high"]


def test_a_probe_at_chance_is_warned_of_in_every_row():
    made = variant_table(rows(), "e", n_resamples=50, warnings=["a", "b"])
    assert made["warnings"].eq("a; b").all()


def test_what_cannot_be_compared_is_an_error():
    with pytest.raises(ValueError, match="path is missing"):
        table(rows("signed"))
    with pytest.raises(ValueError, match=r"unknown statuses \['beyond_range'\]"):
        table(rows(status=("optimal", "optimal", "beyond_range")))


def test_the_picture_has_a_panel_per_quantity_and_a_row_per_variant():
    made = table(rows(), rows("signed")).reset_index()
    panels = variant_figure(made).to_dict()["hconcat"]
    titles = [
        panel["layer"][-1 - (panel is panels[0])]["encoding"]["x"]["title"] for panel in panels
    ]
    assert titles[0].startswith("objective") and titles[-1].endswith("(share)")
    order = panels[0]["layer"][-1]["encoding"]["y"]["scale"]["domain"]
    assert order == ["path", "signed"]
    values = panels[0]["layer"][-1]
    assert values["mark"]["type"] == "text"
    assert values["encoding"]["x"]["value"] == panels[0]["width"]  # beside the panel, not on bars


def test_the_picture_says_when_there_is_nothing():
    empty = variant_table(pd.DataFrame(columns=list(COLUMNS)), "e")
    assert list(empty.columns) == column_names("variants")
    assert variant_figure(empty).to_dict()["mark"]["type"] == "text"
    unsolved = table(rows(status=("infeasible",) * 3)).reset_index()
    assert variant_figure(unsolved).to_dict()["hconcat"][0]["mark"]["type"] == "text"
