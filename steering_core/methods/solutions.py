"""Solution rows: one per (grid point, input), with the status and values of its solution.

A row stores a position on the path, not a dense vector. On demand,
:mod:`steering_core.methods.solution_vectors` expands rows into residual vectors.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool

from steering_core.storage.parquet import write_parquet

#: Status of a text that steering left without one: the logits were NaN or infinite.
NOT_FINITE = "not_finite"
#: The columns that together name a text: ``draw`` counts the texts of a prompt at a strength.
TEXT_KEY = ("method", "strength_index", "example_id", "draw")
#: A strength in absolute units: ``strength`` is α of a fixed direction, the others of a program.
STRENGTH = ("strength", "tau", "lam", "epsilon")
#: The parameters of a program at a strength, in absolute units and in units of the model.
PARTS = ("tau", "lam", "epsilon", "tau_model", "lam_model", "epsilon_model")
#: Statuses under which an intervention exists.
SOLVED = ("fixed", "optimal", "already_satisfied")


@dataclass(frozen=True)
class GridPoint:
    """One strength of one method. ``strength_index`` counts within the method.

    ``strength`` and ``strength_name`` are as configured. ``tau`` is in logits, ``qp_lambda`` in
    1 / residual norm, ``epsilon`` a residual norm; ``*_model`` are the same three in units of the
    model (:mod:`steering_core.methods.model_units`).
    """

    method: str
    strength_index: int
    strength_name: str
    strength: float
    tau: float | None = None
    qp_lambda: float | None = None
    epsilon: float | None = None
    tau_model: float | None = None
    lam_model: float | None = None
    epsilon_model: float | None = None

    def columns(self) -> dict[str, Any]:
        """Return the columns of its rows; that of λ is called ``lam``."""
        return {"lam" if key == "qp_lambda" else key: value for key, value in asdict(self).items()}


def solution_rows(point: GridPoint, example_ids: Sequence[str], **columns: Any) -> pd.DataFrame:
    """Return the rows of one grid point; a column is a value for each input, or one for all."""
    return pd.DataFrame({"example_id": list(example_ids)}).assign(**point.columns(), **columns)


def with_split(frames: list[pd.DataFrame], examples: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of all grid points with the ``split`` of each input.

    Without grid points the table is empty, as for a family of programs whose path is needed but
    that no method uses.
    """
    if not frames:
        nothing = pd.DataFrame({"example_id": [], "method": [], "split": []}, dtype=str)
        return nothing.assign(**dict.fromkeys(PARTS, pd.Series(dtype=float)))
    rows = pd.concat(frames, ignore_index=True)
    return rows.assign(split=rows["example_id"].map(examples.set_index("example_id")["split"]))


def write_solutions(rows: pd.DataFrame, path: str | Path) -> None:
    """Write solution rows as Parquet."""
    write_parquet(path, rows.astype(dict.fromkeys(PARTS, float)))


def selected_row(pareto: pd.DataFrame, method: str) -> pd.Series | None:
    """Return the row of pareto.csv at the method's selected strength; None if none is selected."""
    rows = pareto[(pareto["method"] == method) & pareto["selected"].eq(True)]
    return None if rows.empty else rows.iloc[0]


def solved(rows: pd.DataFrame) -> Bool[np.ndarray, " n"]:
    """Return the mask of the rows that have an intervention."""
    return rows["status"].isin(SOLVED).to_numpy()
