"""The strengths of a method, and its solution rows: one per (strength, input).

A row has the status and the values of its solution. It stores a position on the path, not a dense
vector. On demand, :mod:`steering_core.methods.solution_vectors` expands rows into residual vectors.

A strength is a :class:`GridPoint`. The parts of a program's strength may be in units of the model
(:class:`ModelUnits`), so that one number means the same on every model.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from steering_core.errors import DataError
from steering_core.storage.parquet import write_parquet

Residuals = Callable[[Sequence[str]], Float[np.ndarray, "n d_model"]]

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
    model (:class:`ModelUnits`).
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


@dataclass(frozen=True)
class ModelUnits:
    """What the strengths of programs are measured in on one model, site and concept.

    docs/solver.md derives them. A margin is in typical logits, a budget in typical residual norms,
    and λ in inverses of these. Both are medians: a row that ends in one of the few tokens with
    massive activations (Sun et al. 2024) would move a mean.

    Attributes:
        logit: the median size of the logit that a margin is on, over validation rows.
        residual_norm: the median residual norm at the site, over training rows.

    Raises:
        DataError: if one of them is not positive.
    """

    logit: float
    residual_norm: float

    def __post_init__(self) -> None:
        if not self.logit > 0:
            raise DataError(
                "units: the logit is 0 on half of the validation rows, so it cannot be the unit of "
                "margins: choose another layer, or set units to absolute."
            )
        if not self.residual_norm > 0:
            raise DataError("units: half of the training residuals are 0: choose another layer.")

    @classmethod
    def of_examples(
        cls,
        examples: pd.DataFrame,
        residuals: Residuals,
        decision: Callable[[Float[np.ndarray, "n d_model"]], Float[np.ndarray, " n"]],
    ) -> "ModelUnits":
        """Measure the units.

        Args:
            examples: ``example_id`` and ``split``; training and validation rows are used.
            residuals: returns the residuals of named rows at the site.
            decision: returns the logit of residuals. It was fitted on training rows, on which it is
                larger than on new ones, so its size is measured on validation rows.
        """
        ids = {
            split: examples.loc[examples["split"] == split, "example_id"].tolist()
            for split in ("train", "validation")
        }
        logits = decision(residuals(ids["validation"]).astype(np.float64))
        return cls(float(np.median(np.abs(logits))), median_norm(residuals(ids["train"])))

    def in_both(self, point: GridPoint, units: Literal["model", "absolute"]) -> GridPoint:
        """Return a grid point whose parts are in ``units`` with its parts in both units."""
        given = {"tau": point.tau, "lam": point.qp_lambda, "epsilon": point.epsilon}
        known = {name: value for name, value in given.items() if value is not None}
        model = absolute = known
        if units == "model":
            absolute = {name: value * self.one(name) for name, value in known.items()}
        else:
            model = {name: value / self.one(name) for name, value in known.items()}
        return replace(
            point,
            tau=absolute.get("tau"),
            qp_lambda=absolute.get("lam"),
            epsilon=absolute.get("epsilon"),
            **{f"{name}_model": value for name, value in model.items()},
        )

    def one(self, part: Literal["tau", "lam", "epsilon"]) -> float:
        """Return what 1 in units of the model is: a logit, 1 / residual norm or residual norm."""
        norm = self.residual_norm
        return {"tau": self.logit, "lam": 1 / norm, "epsilon": norm}[part]


def median_norm(residuals: Float[np.ndarray, "n d_model"]) -> float:
    """Return the median Euclidean norm of residuals."""
    return float(np.median(np.linalg.norm(residuals.astype(np.float64), axis=1)))


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
