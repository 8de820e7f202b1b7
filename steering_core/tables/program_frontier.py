"""The programs' frontier as tables: the path's curves, the sweep's points, the knots."""

import numpy as np
import pandas as pd

from steering_core.methods.frontier import grid_points, logits_of
from steering_core.optimize.frontier import curves, unit_frontier
from steering_core.optimize.path import SteeringPath
from steering_core.tables.column import validate_table
from steering_core.tables.frontier_columns import FRONTIER_COLUMNS, FRONTIER_KEY, KNOT_COLUMNS


def program_frontier(path: SteeringPath, solutions: pd.DataFrame, experiment: str) -> pd.DataFrame:
    """Return the frontier at every margin of the sweep, as ``FRONTIER_COLUMNS`` describes.

    Args:
        path: of the experiment; only its fitted range is used.
        solutions: the sweep's rows of the inputs to average over, as ``solutions/*.parquet`` has
            them. Without a program among them the table is empty.
        experiment: its name.
    """
    margins = np.unique(solutions["tau"].dropna().to_numpy(dtype=float))
    parts = {
        "curve": curves(path, logits_of(solutions), margins),
        "sweep": grid_points(solutions),
    }
    table = pd.concat(
        [
            rows.assign(experiment=experiment, point=name)
            for name, rows in parts.items()
            if len(rows)
        ]
        or [pd.DataFrame()]
    ).reindex(columns=[column.name for column in FRONTIER_COLUMNS])
    validate_table(table, "frontier", FRONTIER_COLUMNS, FRONTIER_KEY)
    return table.reset_index(drop=True)


def knot_table(path: SteeringPath, experiment: str) -> pd.DataFrame:
    """Return every knot of the fitted range per unit of shortfall, as ``KNOT_COLUMNS`` says."""
    table = unit_frontier(path).assign(experiment=experiment)
    table = table[[column.name for column in KNOT_COLUMNS]]
    validate_table(table, "knot", KNOT_COLUMNS, ("position",))
    return table
