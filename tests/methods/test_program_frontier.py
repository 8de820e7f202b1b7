"""The frontier along the path."""

import numpy as np
import pandas as pd
import pytest

from steering_core.methods.frontier import frontier_table, grid_points
from steering_core.optimize.path import SteeringPath


@pytest.fixture(scope="module")
def path():
    rng = np.random.default_rng(0)
    decoder = rng.standard_normal((60, 12))
    decoder /= np.linalg.norm(decoder, axis=1, keepdims=True)
    return SteeringPath.fit(decoder, rng.standard_normal(12), s=50.0)


@pytest.fixture(scope="module")
def logits():
    return np.random.default_rng(1).normal(size=9)


def test_a_point_of_the_qp_curve_is_the_mean_over_inputs_of_the_solves(path, logits):
    table = frontier_table(path, logits, [2.0], points=7)
    for row in table[table["program"] == "qp"].itertuples():
        solved = path.qp(2.0 - logits, lam=row.parameter)
        assert row.l1 == pytest.approx(solved.l1.mean())
        assert row.residual_norm == pytest.approx(solved.residual_norm.mean())


def test_norm_falls_and_l1_rises_along_lambda(path, logits):
    table = frontier_table(path, logits, [2.0], points=30)
    curve = table[table["program"] == "qp"].sort_values("parameter")
    assert (np.diff(curve["residual_norm"]) <= 1e-12).all()
    assert (np.diff(curve["l1"]) >= -1e-12).all()


def test_every_point_of_the_socp_curve_serves_every_input(path, logits):
    table = frontier_table(path, logits, [2.0, 4.0], points=11)
    assert table.notna().all(axis=None)
    assert set(table["program"]) == {"qp", "socp"}


def test_no_curve_where_every_input_already_passes(path, logits):
    assert frontier_table(path, logits, [float(logits.min()) - 1.0]).empty


def test_grid_points_leave_out_what_was_not_solved_for_every_input():
    rows = pd.DataFrame(
        {
            "method": ["qp_optimal"] * 2 + ["convex_optimal"] * 2 + ["caa_repe"],
            "strength_index": 0,
            "tau": [2.0] * 4 + [np.nan],
            "lam": [1.0, 1.0] + [np.nan] * 3,
            "epsilon": [np.nan] * 2 + [5.0, 5.0, np.nan],
            "l0": [1.0, 3.0, 2.0, np.nan, np.nan],
            "l1": [2.0, 4.0, 2.0, np.nan, np.nan],
            "residual_norm": [1.0, 2.0, 1.0, np.nan, 9.0],
        }
    )
    points = grid_points(rows)
    assert points.to_dict("records") == [
        {
            "program": "qp",
            "margin": 2.0,
            "parameter": 1.0,
            "l0": 2.0,
            "l1": 3.0,
            "residual_norm": 1.5,
        }
    ]
