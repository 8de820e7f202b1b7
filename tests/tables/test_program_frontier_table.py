"""frontier.csv: curves in closed form, with the points of a sweep that lie on them."""

import io

import numpy as np
import pandas as pd
import pytest

from steering_core.methods.grid_point import GridPoint
from steering_core.methods.program_solutions import solve_programs
from steering_core.optimize.path import SteeringPath
from steering_core.probes.linear_probe import LinearProbe
from steering_core.tables.columns import column_names, validate_table
from steering_core.tables.program_frontier import knot_table, program_frontier

SWEEP = [
    [GridPoint("qp_optimal", i, "tau", tau, tau, 1.0) for i, tau in enumerate([0.5, 2.0])],
    [GridPoint("convex_optimal", 0, "epsilon", 6.0, 3.0, None, 6.0)],
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
