"""Aggregate the variants of the programs into one row per (variant, program, parameter)."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from steering_core.methods.solutions import SOLVED
from steering_core.statistics.bootstrap import mean_interval, ratio_interval
from steering_core.tables.caveats import warnings_cell
from steering_core.tables.columns import interval_cells, tables, validate_table

_COUNTED = {
    "optimal": "n_optimal",
    "already_satisfied": "n_satisfied",
    "infeasible": "n_infeasible",
    "inaccurate": "n_inaccurate",
    "failed": "n_failed",
}


#: Quantities in which a variant is compared with the plain program, input by input.
_COMPARED = ("objective", "l1", "residual_norm")


def variant_table(
    rows: pd.DataFrame,
    experiment: str,
    *,
    seed: int = 0,
    n_resamples: int = 2000,
    warnings: Sequence[str] = (),
) -> pd.DataFrame:
    """Return the table ``variants`` as ``columns.yaml`` describes it.

    Args:
        rows: rows of :func:`steering_core.methods.variants.solve_variants`; ``path`` must be among
            the variants.
        experiment: name of the experiment.
        seed: seed of the bootstrap.
        n_resamples: number of bootstrap samples.
        warnings: warnings for every row.

    Raises:
        ValueError: if ``path`` is missing, or a status is unknown.
    """
    described = tables()["variants"]
    names = described.names
    if rows.empty:
        return pd.DataFrame(columns=names)
    if "path" not in set(rows["variant"]):
        raise ValueError("rows: the variant path is missing; the others are compared with it")
    if unknown := set(rows["status"]) - set(_COUNTED):
        raise ValueError(f"rows: unknown statuses {sorted(unknown)}")
    plain = rows[rows["variant"] == "path"]
    boot = {"seed": seed, "n_resamples": n_resamples}
    table = []
    for (variant, program, parameter), group in rows.groupby(list(described.key), sort=False):
        same = (plain["program"] == program) & (plain["parameter"] == parameter)
        table.append(
            {
                "experiment": experiment,
                "variant": variant,
                "program": program,
                "tau": group["tau"].iloc[0],
                "tau_model": group["tau_model"].iloc[0],
                "parameter": parameter,
                "parameter_model": group["parameter_model"].iloc[0],
                "n": len(group),
                **{name: int((group["status"] == key).sum()) for key, name in _COUNTED.items()},
                **_sizes(group[_solved(group)], boot),
                **_ratios(group, plain[same], boot),
                **_work(group),
                **_flips(group, boot),
                "warnings": warnings_cell(warnings),
            }
        )
    result = pd.DataFrame(table)[names]
    validate_table(result, "variants")
    return result


def _solved(rows: pd.DataFrame) -> pd.Series:
    return rows["status"].isin(SOLVED)


def _sizes(solved: pd.DataFrame, boot: dict[str, int]) -> dict[str, float]:
    columns: dict[str, float] = {}
    for name in ("objective", "l0", "l1", "residual_norm"):
        interval = mean_interval(solved[name].to_numpy(dtype=float), **boot)
        columns |= interval_cells(f"{name}_mean", f"{name}_ci", interval)
    return columns


def _ratios(rows: pd.DataFrame, plain: pd.DataFrame, boot: dict[str, int]) -> dict[str, float]:
    """Return sums divided by those of the plain program, over the inputs that both solved."""
    mine, theirs = (
        frame[_solved(frame)].set_index("example_id")[list(_COMPARED)] for frame in (rows, plain)
    )
    both = mine.index.intersection(theirs.index, sort=False)
    cells: dict[str, float] = {"n_paired": len(both)}
    for name in _COMPARED:
        pair = (frame.loc[both, name].to_numpy() for frame in (mine, theirs))
        cells |= interval_cells(f"{name}_ratio", f"{name}_ratio_ci", ratio_interval(*pair, **boot))
    return cells


def _work(rows: pd.DataFrame) -> dict[str, Any]:
    worked = rows[rows["status"].isin(["optimal", "inaccurate"])]
    used = worked.loc[worked["inner"] != "", "inner"].value_counts(sort=False).sort_index()
    return {
        "relative_gap_max": rows["relative_gap"].max(),
        "dual_violation_max": rows["dual_violation"].max(),
        "iterations_mean": worked["iterations"].mean(),
        "rounds_mean": worked["rounds"].mean(),
        "inner_solvers": ", ".join(f"{name} {count}" for name, count in used.items()) or None,
    }


def _flips(rows: pd.DataFrame, boot: dict[str, int]) -> dict[str, float]:
    outside = rows[rows["eval_probe_base"] <= 0]
    flipped = (outside["eval_probe_steered"] > 0).to_numpy(dtype=float)  # NaN counts as not flipped
    return interval_cells("eval_flip_rate", "eval_flip_ci", mean_interval(flipped, **boot))
