"""Rows of the programs: each at every strength, solved for every input on one path."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from steering_core.config.settings import Settings
from steering_core.methods.grid import grid, make_program
from steering_core.methods.grid_point import GridPoint
from steering_core.methods.modes import mode_of
from steering_core.methods.solutions import solution_rows, with_split
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


def solve_programs(
    points: Sequence[GridPoint],
    example_ids: Sequence[str],
    residuals: Float[np.ndarray, "n d_model"],
    probe: LinearProbe,
    path: SteeringPath,
    shared_by: Float[np.ndarray, "m d_model"] | None = None,
) -> pd.DataFrame:
    """Solve the program of every grid point for every input.

    Args:
        points: grid points of a program.
        example_ids: names of the inputs.
        residuals: their residuals, as the site sees them.
        probe: oriented to the target class.
        path: the path of (decoder, ``probe.weight_vector``); extended as far as needed.
        shared_by: if given, every input gets the one vector that brings the worst of these
            residuals, the one furthest from the margin, to the margin, and so all of them.

    """
    frames = []
    residuals = residuals.astype(np.float64)
    for point in points:
        program = make_program(point.method, point.tau, point.lam, point.epsilon)
        shortfall = program.shortfall(residuals, probe.weight_vector, probe.bias)
        if shared_by is not None:
            others = program.shortfall(
                shared_by.astype(np.float64), probe.weight_vector, probe.bias
            )
            shortfall = np.full(len(residuals), others.max())
        solved = program.solve(path, shortfall)
        frames.append(
            solution_rows(
                point,
                example_ids,
                status=solved.status,
                shortfall=solved.shortfall,
                position=solved.position,
                objective=solved.objective,
                dual_objective=solved.dual_objective,
                relative_gap=solved.relative_gap,
                dual_violation=solved.dual_violation,
                l0=np.where(solved.solved, solved.l0, np.nan),
                l1=solved.l1,
                residual_norm=solved.residual_norm,
            )
        )
    return pd.concat(frames, ignore_index=True)


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
    return with_split(frames, examples)
