"""The points of a sweep on the frontier."""

import numpy as np
import pandas as pd

from steering_core.methods.frontier import grid_points, logits_of

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


def test_a_point_without_any_solution_is_empty_and_there():
    nothing = ROWS[ROWS["method"] == "convex_optimal"].assign(
        status="infeasible", l0=np.nan, l1=np.nan, residual_norm=np.nan, objective=np.nan
    )
    (point,) = grid_points(nothing).to_dict("records")
    assert (point["n_solved"], point["n_infeasible"]) == (0, 2)
    assert np.isnan([point[name] for name in ("l1", "l0", "residual_norm", "margin")]).all()


def test_what_is_not_certified_or_failed_is_not_called_infeasible():
    rows = ROWS.assign(status=ROWS["status"].replace("infeasible", "inaccurate"))
    rows.loc[5, "status"] = "failed"
    (point,) = grid_points(rows[rows["method"] == "convex_optimal"]).to_dict("records")
    assert [point[f"n_{name}"] for name in ("solved", "infeasible", "inaccurate", "failed")] == [
        *(0, 0, 1, 1)
    ]


def test_inputs_start_where_a_program_of_their_own_says():
    assert logits_of(ROWS[ROWS["method"] != "convex_optimal"]).tolist() == [-1.0, 3.0]
    assert logits_of(ROWS[ROWS["method"].isin(["caa_repe", "qp_shared"])]).size == 0
