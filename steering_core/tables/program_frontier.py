"""The programs' frontier as tables: the path's curves, the sweep's points, the knots."""

import numpy as np
import pandas as pd

from steering_core.methods.frontier import grid_points, logits_of
from steering_core.optimize.frontier import curves, unit_frontier
from steering_core.optimize.path import SteeringPath
from steering_core.tables.columns import column_names, validate_table


def program_frontier(path: SteeringPath, solutions: pd.DataFrame, experiment: str) -> pd.DataFrame:
    """Return the frontier at every margin of the sweep, as ``columns.yaml`` describes it.

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
    ).reindex(columns=column_names("frontier"))
    validate_table(table, "frontier")
    return table.reset_index(drop=True)


def knot_table(path: SteeringPath, experiment: str) -> pd.DataFrame:
    """Return every knot of the fitted range per unit of shortfall, as ``columns.yaml`` says."""
    table = unit_frontier(path).assign(experiment=experiment)
    table = table[column_names("frontier_knots")]
    validate_table(table, "frontier_knots")
    return table
