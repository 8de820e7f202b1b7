"""Margins and budgets in units of the model, so that one number means the same on every model.

docs/solver.md derives them. A margin is in typical logits, a budget in typical residual norms, and
λ in inverses of these. Both are medians: a row that ends in one of the few tokens with massive
activations (Sun et al. 2024) would move a mean.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float

from steering_core.errors import DataError
from steering_core.methods.solutions import GridPoint

Residuals = Callable[[Sequence[str]], Float[np.ndarray, "n d_model"]]


@dataclass(frozen=True)
class ModelUnits:
    """What the strengths of programs are measured in on one model, site and concept.

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
