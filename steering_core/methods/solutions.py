"""One row per (grid point, input): what is added there, and how the solve went.

A solution is stored as a coordinate (shortfall, position on the path, status), never as a dense
vector; :mod:`steering_core.methods.interventions` expands rows into residual vectors on demand.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from steering_core.methods.base import Direction
from steering_core.methods.grid import GridPoint, make_program
from steering_core.optimize.path import SteeringPath
from steering_core.probes.linear_probe import LinearProbe
from steering_core.storage.atomic import atomic_path


def solve_fixed(
    points: Sequence[GridPoint], example_ids: Sequence[str], direction: Direction, unit: float
) -> pd.DataFrame:
    """Return the rows of a fixed direction: the same for every input."""
    coefficients = direction.coefficients
    frames = []
    for point in points:
        size = point.strength * unit
        frames.append(
            pd.DataFrame({"example_id": list(example_ids)}).assign(
                **asdict(point),
                status="fixed",
                shortfall=np.nan,
                position=np.nan,
                objective=np.nan,
                dual_objective=np.nan,
                relative_gap=np.nan,
                dual_violation=np.nan,
                l0=np.nan if coefficients is None else float(np.count_nonzero(coefficients)),
                l1=np.nan if coefficients is None else size * float(np.abs(coefficients).sum()),
                residual_norm=size * float(np.linalg.norm(direction.vector)),
            )
        )
    return pd.concat(frames, ignore_index=True)


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
            pd.DataFrame({"example_id": list(example_ids)}).assign(
                **asdict(point),
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


def write_solutions(rows: pd.DataFrame, path: str | Path) -> None:
    """Write solution rows as Parquet."""
    rows = rows.astype({"tau": float, "lam": float, "epsilon": float})
    with atomic_path(path) as temporary:
        rows.to_parquet(temporary, index=False, compression="zstd")
