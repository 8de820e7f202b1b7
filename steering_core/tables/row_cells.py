"""Cells of a Pareto row that are over test rows: how much is touched, and what probes say."""

import pandas as pd

from steering_core.methods.solutions import solved
from steering_core.statistics.bootstrap import mean_interval
from steering_core.tables.columns import interval_cells

#: Columns of the solutions, and the stems of the cells that hold their means.
_SIZES = ("residual_norm", "l0", "l1")


def row_cells(
    solutions: pd.DataFrame, effects: pd.DataFrame, boot: dict[str, int]
) -> dict[str, float]:
    """Return counts, sizes, probe scores and flip rates of one method at one strength.

    Args:
        solutions: a row per test row, as ``solutions/*.parquet`` has them.
        effects: a row per test row, as ``probe_effects.parquet`` has them.
        boot: ``seed`` and ``n_resamples`` of the intervals.

    """
    with_solution = solutions[solved(solutions)]
    outside = effects.loc[effects["eval_probe_base"] <= 0, "example_id"]
    outside_solved = with_solution[with_solution["example_id"].isin(outside)]
    counts = {
        "n_examples": len(effects),
        "n_solved": len(with_solution),
        "n_outside": int((effects["probe_base"] <= 0).sum()),
        "n_outside_eval": len(outside),
        "n_outside_eval_solved": len(outside_solved),
    }
    return (
        counts
        | size_cells(with_solution, "{}", boot)
        | size_cells(outside_solved, "{}_outside_eval", boot)
        | _probe_cells(effects, boot)
    )


def size_cells(
    rows: pd.DataFrame, name: str, boot: dict[str, int], sizes: tuple[str, ...] = _SIZES
) -> dict[str, float]:
    """Return how much is touched, on average over ``rows``, which all have a solution.

    Args:
        rows: of the solutions.
        name: what the cells are called, with {} for the size.
        boot: as in :func:`row_cells`.
        sizes: which sizes.

    """
    cells: dict[str, float] = {}
    for size in sizes:
        stem = name.format(size)
        values = rows[size].dropna().to_numpy(dtype=float)  # NaN: not through features
        cells |= interval_cells(f"{stem}_mean", f"{stem}_ci", mean_interval(values, **boot))
    return cells


def _probe_cells(effects: pd.DataFrame, boot: dict[str, int]) -> dict[str, float]:
    cells: dict[str, float] = {}
    for probe, flip in (("probe", "flip"), ("eval_probe", "eval_flip")):
        # Before and after are over the same rows: those left are nearer the margin to begin with.
        both = effects.dropna(subset=[f"{probe}_steered"])
        for when, stem in (("base", "score_base_ci"), ("steered", "score_ci")):
            scores = mean_interval(both[f"{probe}_{when}"].to_numpy(dtype=float), **boot)
            cells |= interval_cells(f"{probe}_score_{when}", f"{probe}_{stem}", scores)
        outside = effects[effects[f"{probe}_base"] <= 0]
        flipped = outside[f"{probe}_steered"] > 0  # NaN, no solution: not flipped
        rate = mean_interval(flipped.to_numpy(dtype=float), **boot)
        cells |= interval_cells(f"{flip}_rate", f"{flip}_ci", rate)
    return cells
