"""frontier.csv: curves in closed form, with the points of a sweep that lie on them."""

import io

import numpy as np
import pandas as pd
import pytest
from table_data import fields, frontier_table, rows_of, spec

from steering_core.methods.programs import solve_programs
from steering_core.methods.solutions import GridPoint, ModelUnits
from steering_core.optimize.path import SteeringPath
from steering_core.probes.linear_probe import LinearProbe
from steering_core.tables.columns import column_names, validate_table
from steering_core.tables.program_frontier import (
    frontier_figure,
    grid_points,
    knot_table,
    logits_of,
    program_frontier,
)

UNITS = ModelUnits(logit=2.0, residual_norm=10.0)
SWEEP = [
    [
        UNITS.in_both(GridPoint("qp_optimal", i, "tau", tau, tau, 1.0), "absolute")
        for i, tau in enumerate([0.5, 2.0])
    ],
    [UNITS.in_both(GridPoint("convex_optimal", 0, "epsilon", 6.0, 3.0, None, 6.0), "absolute")],
]


@pytest.fixture(scope="module")
def world():
    rng = np.random.default_rng(0)
    decoder = rng.standard_normal((60, 12))
    decoder /= np.linalg.norm(decoder, axis=1, keepdims=True)
    probe = LinearProbe(rng.standard_normal(12), 0.1, (0, 1), 1.0, 0.9, (0.9,), 0.0, False, 9)
    path = SteeringPath.fit(decoder, probe.weight_vector)
    ids, residuals = list("abcdefgh"), 0.3 * rng.standard_normal((8, 12))
    sweep = [solve_programs(points, ids, residuals, probe, path) for points in SWEEP]
    return path, pd.concat(sweep, ignore_index=True)


def test_the_points_of_the_sweep_lie_on_the_curves(world):
    path, solutions = world
    table = program_frontier(path, solutions, "e")
    curves, points = (table[table["point"] == kind] for kind in ("curve", "sweep"))
    assert set(map(tuple, points[["program", "tau"]].values)) == {
        ("qp", 0.5),
        ("qp", 2.0),
        ("socp", 3.0),
    }
    for point in points.itertuples():
        same = (curves["program"] == point.program) & (curves["tau"] == point.tau)
        curve = curves[same].sort_values("parameter")
        assert (curve["n_solved"] == 8).all()
        for column in ("l1", "residual_norm"):
            between = np.interp(point.parameter, curve["parameter"], curve[column])
            assert getattr(point, column) == pytest.approx(between, rel=1e-3)


def test_every_row_has_both_units(world):
    path, solutions = world
    table = program_frontier(path, solutions, "e")
    np.testing.assert_allclose(table["tau"], 2.0 * table["tau_model"])
    qp, socp = (table[table["program"] == program] for program in ("qp", "socp"))
    np.testing.assert_allclose(qp["parameter_model"], 10.0 * qp["parameter"])
    np.testing.assert_allclose(socp["parameter_model"], socp["parameter"] / 10.0)
    assert len(qp) and len(socp)


def test_margins_of_declared_programs_are_not_drawn_on_this_path(world):
    path, solutions = world
    other = solutions.assign(method="mine", tau=77.0)
    table = program_frontier(path, pd.concat([solutions, other]), "e")
    assert 77.0 not in set(table["tau"])


def test_tables_keep_to_their_columns_also_after_csv(world):
    path, solutions = world
    for table, name in (
        (program_frontier(path, solutions, "e"), "frontier"),
        (knot_table(path, "e"), "frontier_knots"),
    ):
        again = pd.read_csv(io.StringIO(table.to_csv(index=False)))
        validate_table(again, name)
        assert len(again) > 3


def test_without_a_program_the_table_is_empty(world):
    path, solutions = world
    table = program_frontier(path, solutions[solutions["method"] == "caa_repe"], "e")
    assert table.empty and list(table) == column_names("frontier")


ROWS = pd.DataFrame(
    {
        "method": ["caa_repe"] + ["qp_shared"] * 2 + ["qp_optimal"] * 2 + ["convex_optimal"] * 2,
        "strength_index": 0,
        "tau": [np.nan] + [2.0] * 6,
        "lam": [np.nan] + [1.0] * 4 + [np.nan] * 2,
        "epsilon": [np.nan] * 5 + [5.0, 5.0],
        "shortfall": [np.nan, 9.0, 9.0, 3.0, -1.0, 3.0, 1.0],
        "status": ["fixed"] + ["optimal"] * 3 + ["already_satisfied", "optimal", "infeasible"],
        "l0": [np.nan, 9.0, 9.0, 1.0, 0.0, 2.0, np.nan],
        "l1": [np.nan, 9.0, 9.0, 2.0, 0.0, 2.0, np.nan],
        "residual_norm": [9.0, 9.0, 9.0, 1.0, 0.0, 1.0, np.nan],
        "objective": [np.nan, 9.0, 9.0, 2.5, 0.0, 2.0, np.nan],
    }
)


def test_grid_points_say_how_many_inputs_they_are_over():
    convex, quadratic = grid_points(ROWS).to_dict("records")
    assert (convex["n_solved"], convex["n_infeasible"], convex["n_satisfied"]) == (1, 1, 0)
    assert (convex["l1"], convex["l0"], convex["parameter"]) == (2.0, 2.0, 5.0)
    assert convex["margin"] == 2.0  # of the input with a solution
    assert [quadratic] == [
        {
            "program": "qp",
            "tau": 2.0,
            "parameter": 1.0,
            "l1": 1.0,
            "l0": 0.5,
            "residual_norm": 0.5,
            "objective": 1.25,
            "margin": 2.5,
            "n_solved": 2,
            "n_satisfied": 1,
            "n_infeasible": 0,
            "n_inaccurate": 0,
            "n_failed": 0,
        }
    ]


def test_a_point_without_any_solution_is_kept_with_empty_cells():
    nothing = ROWS[ROWS["method"] == "convex_optimal"].assign(
        status="infeasible", l0=np.nan, l1=np.nan, residual_norm=np.nan, objective=np.nan
    )
    (point,) = grid_points(nothing).to_dict("records")
    assert (point["n_solved"], point["n_infeasible"]) == (0, 2)
    assert np.isnan([point[name] for name in ("l1", "l0", "residual_norm", "margin")]).all()


def test_inaccurate_and_failed_rows_are_not_counted_as_infeasible():
    rows = ROWS.assign(status=ROWS["status"].replace("infeasible", "inaccurate"))
    rows.loc[5, "status"] = "failed"
    (point,) = grid_points(rows[rows["method"] == "convex_optimal"]).to_dict("records")
    assert [point[f"n_{name}"] for name in ("solved", "infeasible", "inaccurate", "failed")] == [
        *(0, 0, 1, 1)
    ]


def test_inputs_start_where_a_program_of_their_own_says():
    assert logits_of(ROWS[ROWS["method"] != "convex_optimal"]).tolist() == [-1.0, 3.0]
    assert logits_of(ROWS[ROWS["method"].isin(["caa_repe", "qp_shared"])]).size == 0


ALL_SOLVED = {"n_infeasible": 0, "n_inaccurate": 0, "n_failed": 0}


def test_frontier_at_one_margin() -> None:
    df = frontier_table()
    chart = spec(frontier_figure(df, df.iloc[::10].assign(**ALL_SOLVED)))
    panels = chart["hconcat"]
    assert [fields(panel, "y") for panel in panels] == [{"l1"}, {"l0"}]
    assert {row["curve"] for row in rows_of(chart, 0, "line")} == {"qp 1.0", "socp 1.0"}
    assert len(rows_of(chart, 0, "point")) == len(df.iloc[::10])


def test_frontier_points_over_some_rows_are_hollow_and_over_no_rows_not_drawn() -> None:
    df = frontier_table()
    counts = {"n_infeasible": [0, 2, 0, 9], "n_inaccurate": [0, 0, 1, 0]}
    grid = df.iloc[:4].assign(**ALL_SOLVED).assign(**counts)
    grid.loc[grid.index[3], ["l0", "l1", "residual_norm"]] = np.nan
    chart = spec(frontier_figure(df, grid))
    points = [one for one in chart["hconcat"][0]["layer"] if one["mark"]["type"] == "point"]
    filters = {one["transform"][0]["filter"]: one["mark"] for one in points}
    unsolved = "datum.n_infeasible + datum.n_inaccurate + datum.n_failed"
    assert filters[f"{unsolved} == 0"]["filled"] is True
    assert filters[f"{unsolved} > 0"]["filled"] is False
    assert [row["n_infeasible"] for row in rows_of(chart, 0, "point")] == [0, 2, 0]


def test_frontier_labels_several_margins_clear_of_the_curves() -> None:
    chart = spec(frontier_figure(frontier_table((0.5, 2.0))))
    rows = rows_of(chart, 0, "text")
    assert {row["label"] for row in rows} == {"τ=0.5", "τ=2"}
    assert all(row["dy"] < 0 for row in rows)  # the curves fall to the right of their ends
    assert chart["title"]["text"].startswith("demo: ")
    assert "τ: the margin" in chart["title"]["subtitle"]
    assert "τ" not in spec(frontier_figure(frontier_table()))["title"]["subtitle"]


def test_frontier_along_the_margin_has_a_third_panel() -> None:
    margins = np.linspace(0.1, 4, 20)
    df = pd.DataFrame({"program": "qp", "parameter": 1.0, "tau": margins, "experiment": "demo"})
    df = df.assign(l0=5, l1=3 * margins, residual_norm=2 * margins)
    panels = spec(frontier_figure(df))["hconcat"]
    assert len(panels) == 3 and fields(panels[2], "x") == {"tau"}


def test_frontier_without_a_program_says_so() -> None:
    assert spec(frontier_figure(frontier_table().iloc[:0]))["mark"]["type"] == "text"
