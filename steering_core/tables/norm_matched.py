"""Aggregate the comparison at equal norm into one row per (program, strength, direction)."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from steering_core.methods.solutions import PARTS
from steering_core.statistics.bootstrap import mean_interval
from steering_core.tables.caveats import warnings_cell
from steering_core.tables.columns import column_names, interval_cells, validate_table

_POINT = ["strength_name", "strength", *PARTS]


def norm_matched_table(
    rows: pd.DataFrame,
    experiment: str,
    *,
    seed: int = 0,
    n_resamples: int = 2000,
    warnings: Sequence[str] = (),
) -> pd.DataFrame:
    """Return the table ``norm_matched`` as ``columns.yaml`` describes it.

    Args:
        rows: rows of :func:`steering_core.metrics.probe_effects.norm_matched_effects` for all
            programs together. A strength without a row to compare on is left out of the table.
        experiment: name of the experiment.
        seed: seed of the bootstrap.
        n_resamples: number of bootstrap samples.
        warnings: warnings for every row.

    """
    names = column_names("norm_matched")
    if rows.empty:
        return pd.DataFrame(columns=names)
    boot = {"seed": seed, "n_resamples": n_resamples}
    table = []
    for (method, _, direction), group in rows.groupby(
        ["method", "strength_index", "direction"], sort=False
    ):
        table.append(
            {
                "experiment": experiment,
                "seed": seed,
                "method": method,
                **group.iloc[0][_POINT].to_dict(),
                "direction": direction,
                "n": len(group),
                **_cells(group, boot),
                "warnings": warnings_cell(warnings),
            }
        )
    result = pd.DataFrame(table)[names].astype(dict.fromkeys(_POINT[1:], float))
    validate_table(result, "norm_matched")
    return result


def _cells(rows: pd.DataFrame, boot: dict[str, int]) -> dict[str, Any]:
    program, direction = (
        rows[f"{name}_flipped"].to_numpy(dtype=float) for name in ("program", "direction")
    )
    cells: dict[str, Any] = {}
    for name, stem, values in (
        ("residual_norm_mean", "residual_norm_ci", rows["norm"].to_numpy(dtype=float)),
        ("program_flip_rate", "program_flip_ci", program),
        ("direction_flip_rate", "direction_flip_ci", direction),
        ("difference", "difference_ci", program - direction),
    ):
        cells |= interval_cells(name, stem, mean_interval(values, **boot))
    return cells
