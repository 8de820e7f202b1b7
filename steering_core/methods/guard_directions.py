"""The directions that guards of declared programs protect, and what the guards cost and save.

A bound κ is in standard deviations of the projection on the experiment's training rows. So it means
the same for every direction, layer and model, and needs no labels; a logit would need a probe with
labels of its own, and principal components have no labels.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Shaped

from steering_core.errors import ConfigError, DataError
from steering_core.methods.solutions import PARTS, GridPoint, solution_rows
from steering_core.optimize.guarded import DenseSolutions, GuardedSolutions
from steering_core.optimize.working_set.bounds import Guards
from steering_core.probes.linear_probe import LinearProbe
from steering_core.storage.parquet import write_parquet


def guards_of(
    declared: Sequence[Mapping[str, Any]],
    residuals: Float[np.ndarray, "n d_model"],
    probes: Mapping[str, LinearProbe] | None = None,
    contrasts: Mapping[str, Float[np.ndarray, " d_model"]] | None = None,
) -> Guards | None:
    """Return guards with directions that are scaled to a standard deviation of 1 on training rows.

    Args:
        declared: the configured guards; each has ``direction`` and ``kappa``, and ``count`` of
            ``principal_components``, the ``experiment`` of a ``probe``, or the file ``concept`` of
            a ``contrastive`` direction.
        residuals: of the training rows, as the site sees them.
        probes: of other experiments, by their name; a guard with a probe needs it.
        contrasts: mean differences over the pairs of concept files, by the name of the file; a
            contrastive guard needs it.

    Returns:
        None without guards.

    Raises:
        DataError: if the training rows have fewer components, or do not vary along a direction.
        ValueError: naming ``probes`` or ``contrasts``, if one is missing.
    """
    centred = residuals.astype(np.float64) - residuals.mean(axis=0, dtype=np.float64)
    directions, kappa, names = [], [], []
    for guard in declared:
        if guard["direction"] == "principal_components":
            found = _components(centred, int(guard["count"]))
            called = [f"component {1 + k}" for k in range(len(found))]
        elif guard["direction"] == "contrastive":
            file = guard["concept"]
            if file not in (contrasts or {}):
                raise ValueError(f"contrasts: the direction of {file} is missing")
            found, called = contrasts[file][None], [f"contrast of {Path(file).stem}"]
        else:
            other = guard["experiment"]
            if other not in (probes or {}):
                raise ValueError(f"probes: the probe of {other} is missing")
            found, called = probes[other].weight_vector[None], [f"probe of {other}"]
        for direction, name in zip(found, called, strict=True):
            spread = float((centred @ direction).std())
            if not spread > 0:
                raise DataError(
                    f"guard {name}: all training rows have the same projection on it: leave it out"
                )
            directions.append(direction / spread)
            kappa.append(float(guard["kappa"]))
            names.append(name)
    return Guards.of(np.stack(directions), kappa, names) if directions else None


def mean_contrast(
    positive: Float[np.ndarray, "pairs d_model"],
    negative: Float[np.ndarray, "pairs d_model"],
    concept: str,
) -> Float[np.ndarray, " d_model"]:
    """Return the mean difference of residuals over contrastive pairs, as of ``caa_contrastive``.

    Args:
        positive: of the texts of class 1.
        negative: of the texts of class 0, pair by pair.
        concept: the file, for the message.

    Raises:
        DataError: if the differences cancel: there is no direction.
    """
    direction = (positive.astype(np.float64) - negative.astype(np.float64)).mean(axis=0)
    if not np.linalg.norm(direction) > 0:
        raise DataError(
            f"{concept}: the pairs have no difference: write other texts under contrast"
        )
    return direction


def _components(
    centred: Float[np.ndarray, "n d_model"], count: int
) -> Float[np.ndarray, "count d_model"]:
    """Return the first principal components."""
    _, size, rows = np.linalg.svd(centred, full_matrices=False)
    rank = int((size > 1e-10 * size[0]).sum())
    if count > rank:
        raise DataError(
            f"guards: {count} principal components are asked for, and the training rows have "
            f"{rank}: lower count"
        )
    return rows[:count]


def same_site(other: str, theirs: Mapping[str, Any], mine: Mapping[str, Any]) -> None:
    """Check that another experiment's probe reads the residuals of this one.

    Args:
        other: name of the other experiment.
        theirs: the layer that it picked.
        mine: the layer that this experiment picked.

    Raises:
        ConfigError: if they are not the same place.
    """
    keys = ("layer", "stream", "centred")
    if any(theirs[key] != mine[key] for key in keys):
        raise ConfigError(
            f"guards: the probe of {other} is at layer {theirs['layer']} ({theirs['stream']}), and "
            f"layer {mine['layer']} ({mine['stream']}) is steered: set the same `layer` in both"
        )


def guard_rows(
    point: GridPoint,
    example_ids: Sequence[str],
    guards: Guards,
    status: Shaped[np.ndarray, " n"],
    solved: GuardedSolutions | DenseSolutions,
    vectors: Float[np.ndarray, "n d_model"],
    unguarded: Float[np.ndarray, "n d_model"],
) -> list[pd.DataFrame]:
    """Return a row for each input at one strength, one table for each guard.

    Args:
        point: the strength.
        example_ids: of the inputs.
        guards: with directions as the site sees them.
        status: of each input.
        solved: the solutions, in whatever metric.
        vectors: what they add.
        unguarded: what the solutions without guards add.
    """
    nothing = np.full(len(status), np.nan)  # a dense vector has no features
    l0 = l0_unguarded = nothing
    if isinstance(solved, GuardedSolutions):
        free = solved.free
        l0 = np.where(solved.solved, solved.l0, np.nan)
        l0_unguarded = np.where(free.solved, free.l0, np.nan)
    frames = []
    shifts, before = guards.shifts(vectors), guards.shifts(unguarded)
    norm, norm_before = (np.linalg.norm(found, axis=1) for found in (vectors, unguarded))
    for j, name in enumerate(guards.names):
        columns = {
            "guard": name,
            "kappa": guards.kappa[j],
            "status": status,
            "blocking": [name in blocking for blocking in solved.blocked_by],
            "shift": shifts[:, j],
            "shift_unguarded": before[:, j],
            "price": solved.guard_prices[:, j],
            "l0": l0,
            "l0_unguarded": l0_unguarded,
            "residual_norm": norm,
            "residual_norm_unguarded": norm_before,
        }
        frames.append(solution_rows(point, example_ids, **columns))
    return frames


def write_guard_rows(rows: pd.DataFrame | None, path: str | Path) -> None:
    """Write the rows of all strengths and guards as Parquet; an empty table without guards."""
    if rows is None:
        rows = pd.DataFrame({"method": pd.Series(dtype=str), "guard": pd.Series(dtype=str)})
        write_parquet(path, rows)
        return
    write_parquet(path, rows.astype(dict.fromkeys(PARTS, float)))
