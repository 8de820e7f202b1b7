"""From scores to the best features of a layer and their coefficients."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Float, Shaped

from steering_core.corrsteer.scores import Scores
from steering_core.statistics.result import CorrelationResult

if TYPE_CHECKING:
    from steering_core.config.corrsteer_schema import Arm

DIRECTIONS = {"positive": (1,), "negative": (-1,), "both": (-1, 0, 1)}


@dataclass(frozen=True)
class Coefficients:
    """Coefficients of the features of one layer, before the scale.

    Attributes:
        value: residual-stream units along the unit decoder row; NaN where undefined.
        reason: why it is NaN.
    """

    value: Float[np.ndarray, " f"]
    reason: Shaped[np.ndarray, " f"]


def coefficients(
    arm: "Arm", result: CorrelationResult, direction: Shaped[np.ndarray, " f"]
) -> Coefficients:
    """Return the coefficient of each feature.

    All kinds are means of the pooled activation, zeros included.

    - ``mean``: the mean over successes. A feature negatively associated with success gets minus
      its mean over failures instead, since the clearest of these fire on failures only. Raw
      dimensions have a sign of their own and always get the mean over successes.
    - ``difference``: the mean over successes minus the mean over failures.
    - ``overall``: the mean over all samples, which uses no label.
    - ``success``: the mean over successes, also for features negatively associated with success.
    """
    if arm.coefficient == "difference":
        value = result.mean_positive - result.mean_negative
    elif arm.coefficient == "overall":
        value = result.mean.copy()
    elif arm.coefficient == "success" or arm.space == "raw":
        value = result.mean_positive.copy()
    else:
        value = np.where(direction < 0, -result.mean_negative, result.mean_positive)
    reason = np.where(np.isnan(value), "one outcome only", "").astype("<U40")
    zero = value == 0
    reason[zero] = "no difference" if arm.coefficient == "difference" else "coefficient of zero"
    value = np.where(reason == "", value, np.nan)
    return Coefficients(value, reason)


def rank(arm: "Arm", scores: Scores, coefficient: Coefficients, keep: int) -> pd.DataFrame:
    """Return the best ``keep`` features with a defined score, coefficient and wanted direction.

    Ties, such as infinite ratios, go to the larger mean square over successes, then to the lower
    index of the feature. Columns: ``feature, score, direction, correlation, coefficient,
    mean_success, mean_failure, active_success, active_failure``.
    """
    result = scores.result
    usable = (
        ~np.isnan(scores.value)
        & ~np.isnan(coefficient.value)
        & np.isin(scores.direction, DIRECTIONS[arm.sign])
    )
    index = np.flatnonzero(usable)
    order = np.lexsort((index, -result.mean_square_positive[index], -scores.value[index]))
    best = index[order[:keep]]
    return pd.DataFrame(
        {
            "feature": best,
            "score": scores.value[best],
            "direction": scores.direction[best],
            "correlation": result.correlation[best],
            "coefficient": coefficient.value[best],
            "mean_success": result.mean_positive[best],
            "mean_failure": result.mean_negative[best],
            "active_success": result.active_positive[best],
            "active_failure": result.active_negative[best],
        }
    )


def why_none(arm: "Arm", scores: Scores, coefficient: Coefficients) -> str:
    """Return the most common reason why the features of a layer cannot be used for steering."""
    reasons = np.where(scores.reason != "", scores.reason, coefficient.reason)
    reasons = np.where(reasons != "", reasons, f"no {arm.sign} feature")
    names, counts = np.unique(reasons, return_counts=True)
    return str(names[counts.argmax()])
