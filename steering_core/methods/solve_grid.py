"""Every configured method of a family at every strength, for every input of an experiment."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from steering_core.config.settings import Settings
from steering_core.methods.base import Direction
from steering_core.methods.grid import grid
from steering_core.methods.modes import mode_of
from steering_core.methods.solutions import solve_fixed, solve_programs
from steering_core.optimize.path import SteeringPath
from steering_core.probes.linear_probe import LinearProbe
from steering_core.progress import progress


def fits_shared_vector(examples: pd.DataFrame, target_class: int) -> Bool[np.ndarray, " n"]:
    """Return which rows a shared vector is fitted to: neither test rows nor prompts.

    They are the validation rows that are not of the target class.
    """
    validation = (examples["split"] == "validation").to_numpy()
    away = (examples["label"] != target_class).fillna(False).to_numpy(dtype=bool)
    return validation & away


def solve_directions(
    settings: Settings,
    examples: pd.DataFrame,
    direction_of: Callable[[str], tuple[Direction, float]],
) -> pd.DataFrame:
    """Return a row per (grid point of a fixed direction, input), with the input's ``split``.

    Args:
        settings: methods and strengths.
        examples: ``example_id`` and ``split`` of the n inputs.
        direction_of: gives direction and mean residual norm of a fixed method.
    """
    ids = examples["example_id"].tolist()
    frames = [
        solve_fixed(grid(method, settings), ids, *direction_of(method))
        for method in settings.methods
    ]
    return _with_split(frames, examples)


def solve_program_grid(
    settings: Settings,
    examples: pd.DataFrame,
    residuals: Float[np.ndarray, "n d_model"],
    probe: LinearProbe,
    path: SteeringPath,
    target_class: int,
) -> pd.DataFrame:
    """Return a row per (grid point of a program, input), with the input's ``split``.

    Args:
        settings: methods and strengths.
        examples: ``example_id``, ``split`` and ``label`` of the n inputs.
        residuals: of the inputs, as the site sees them.
        probe: oriented to the target class.
        path: of the probe on the dictionary.
        target_class: that is steered to.
    """
    ids = examples["example_id"].tolist()
    outside = residuals[fits_shared_vector(examples, target_class)]
    frames = []
    for method in progress(settings.methods, "solving"):
        shared_by = outside if mode_of(method) == "shared" else None
        points = grid(method, settings)
        frames.append(solve_programs(points, ids, residuals, probe, path, shared_by))
    return _with_split(frames, examples)


def _with_split(frames: list[pd.DataFrame], examples: pd.DataFrame) -> pd.DataFrame:
    if not frames:
        return pd.DataFrame({"example_id": [], "method": [], "split": []}, dtype=str)
    rows = pd.concat(frames, ignore_index=True)
    return rows.assign(split=rows["example_id"].map(examples.set_index("example_id")["split"]))
