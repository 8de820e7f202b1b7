"""All methods at once: rows, splits, and what the shared vector is fitted to."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
from small_world import D_MODEL, decoder, inputs, probe

from steering_core.config.methods import settings_of
from steering_core.config.schema import Settings
from steering_core.methods.base import Direction
from steering_core.methods.fixed_solutions import solve_directions
from steering_core.methods.programs import (
    fits_shared_vector,
    grid,
    solve_program_grid,
    solve_programs,
)
from steering_core.optimize.path import SteeringPath

D, H = decoder(), inputs()
SPLITS = ["validation", "test", "prompt"]
EXAMPLES = pd.DataFrame(
    {
        "example_id": [f"row {i}" for i in range(len(H))],
        "split": [SPLITS[i % 3] for i in range(len(H))],
        "label": pd.array([None if i % 3 == 2 else i % 2 for i in range(len(H))], dtype="Int64"),
    }
)
SETTINGS = Settings(
    methods=["no_steering", "caa_mean_diff", "qp_optimal", "qp_shared"],
    strengths=[1.0, 2.0],
    qp_tau=[2.0],
)
DIRECTIONS, PROGRAMS = (
    SimpleNamespace(**settings_of(name, SETTINGS)) for name in ("directions", "qp")
)


def test_a_shared_vector_knows_validation_rows_outside_the_class_alone():
    chosen = EXAMPLES[fits_shared_vector(EXAMPLES, 1)]
    assert len(chosen) and set(chosen["split"]) == {"validation"} and set(chosen["label"]) == {0}


def test_every_direction_has_a_row_for_each_strength_and_input():
    direction = Direction(np.eye(D_MODEL)[0])
    rows = solve_directions(DIRECTIONS, EXAMPLES, lambda method: (direction, 3.0))
    n = len(H)
    assert rows.groupby("method").size().to_dict() == {"no_steering": n, "caa_mean_diff": 2 * n}
    assert rows["split"].tolist() == EXAMPLES["split"].tolist() * 3


def test_every_program_has_a_row_for_each_strength_and_input():
    path = SteeringPath.fit(D, probe().weight_vector)
    rows = solve_program_grid(PROGRAMS, EXAMPLES, H, probe(), path, 1)
    strengths, n = len(SETTINGS.qp_lambda), len(H)
    counts = rows.groupby("method").size().to_dict()
    assert counts == {"qp_optimal": strengths * n, "qp_shared": strengths * n}
    assert rows["split"].tolist() == EXAMPLES["split"].tolist() * (2 * strengths)
    shared = rows[rows["method"] == "qp_shared"].reset_index(drop=True)
    points = grid("qp_shared", SETTINGS)
    outside = H[fits_shared_vector(EXAMPLES, 1)]
    want = solve_programs(
        points, EXAMPLES["example_id"].tolist(), H, probe(), path, shared_by=outside
    )
    pd.testing.assert_frame_equal(shared.drop(columns="split"), want, check_dtype=False)
