"""One row per (grid point, input): what is added there, and how the solve went.

A solution is stored as a coordinate (shortfall, position on the path, status), never as a dense
vector; :class:`Interventions` expands rows into residual vectors on demand.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from steering_core.methods.base import Direction
from steering_core.methods.directions import read_direction
from steering_core.methods.grid import GridPoint, make_program
from steering_core.methods.modes import is_program, program_of
from steering_core.methods.optimal import QPOptimalSteering
from steering_core.optimize.path import SteeringPath
from steering_core.probes.linear_probe import LinearProbe
from steering_core.storage.atomic import atomic_path

#: Statuses under which an intervention exists.
SOLVED = ("fixed", "optimal", "already_satisfied")


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


class Interventions:
    """The vectors of solution rows.

    Args:
        solutions: rows of one method, as the functions above return them.
        directions: the file of the fixed directions.
        path: the steering path, for the programs.

    """

    def __init__(
        self, solutions: pd.DataFrame, directions: str | Path, path: SteeringPath | None = None
    ):
        self.rows = solutions.reset_index(drop=True)
        methods = self.rows["method"].unique()
        if len(methods) != 1:
            raise ValueError(f"solutions must be of one method, got {list(methods)}")
        self.method = str(methods[0])
        self._path = path
        self._fixed: Direction | None = None
        self._unit = 0.0
        if not is_program(self.method):
            self._fixed, self._unit = read_direction(directions, self.method)
        elif path is None:
            raise ValueError(f"path: {self.method} needs the steering path")

    def points(self) -> list[int]:
        """Return the strength indices, ascending."""
        return sorted(self.rows["strength_index"].unique())

    def at(self, strength_index: int, example_ids: Sequence[str]) -> pd.DataFrame:
        """Return the rows of a grid point in the order of ``example_ids``."""
        rows = self.rows[self.rows["strength_index"] == strength_index]
        return rows.set_index("example_id").loc[list(example_ids)].reset_index()

    def vectors(self, rows: pd.DataFrame) -> Float[np.ndarray, "n d_model"]:
        """Return the vector of each row; NaN where the status says there is none."""
        if self._fixed is not None:
            size = rows["strength"].to_numpy()[:, None] * self._unit
            return size * self._fixed.vector[None]
        assert self._path is not None
        return self._path.at(
            rows["position"].to_numpy(),
            rows["shortfall"].to_numpy(),
            program_of(self.method),
            self.parameters(rows),
        ).vector

    def parameters(self, rows: pd.DataFrame) -> Float[np.ndarray, " n"]:
        """Return λ or ε of each row of a program."""
        column = "lam" if program_of(self.method) == "qp" else "epsilon"
        return rows[column].to_numpy(dtype=float)


def read_interventions(
    method: str, solutions: str | Path, directions: str | Path, path: str | Path
) -> Interventions:
    """Read the interventions of one method from the files of the solve stage."""
    rows = pd.read_parquet(solutions, filters=[("method", "==", method)])
    steering_path = SteeringPath.load(path) if is_program(method) else None
    return Interventions(rows, directions, steering_path)


def coefficient_share(solutions: pd.DataFrame, path: SteeringPath) -> Float[np.ndarray, " d_sae"]:
    """Return each feature's share of the summed coefficients of the QP rows; zeros without any."""
    rows = solutions[solutions["method"] == QPOptimalSteering.name]
    rows = rows[rows["status"] == "optimal"]
    if rows.empty:
        return np.zeros(path.d_sae)
    solutions_at = path.at(
        rows["position"].to_numpy(), rows["shortfall"].to_numpy(), "qp", rows["lam"].to_numpy()
    )
    total = np.asarray(solutions_at.delta.sum(axis=0)).ravel()
    return total / total.sum()


def solved(rows: pd.DataFrame) -> np.ndarray:
    """Return which rows have an intervention."""
    return rows["status"].isin(SOLVED).to_numpy()
