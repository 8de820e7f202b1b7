"""Any direction as a probe: its projection calibrated to logits."""

import numpy as np
from jaxtyping import Float, Shaped
from sklearn.linear_model import LogisticRegression

from steering_core.errors import DataError


def calibrated(
    direction: Float[np.ndarray, " d_model"],
    residuals: Float[np.ndarray, "n d_model"],
    target: Shaped[np.ndarray, " n"],
    what: str = "direction",
) -> tuple[Float[np.ndarray, " d_model"], float]:
    """Return weight and bias of the logit that a direction c gives: ``scale · (c·h) + bias``.

    Scale and bias are a logistic regression on one number, the projection ``c·h``. A margin on any
    direction is then in logits, as a margin on a fitted probe is. The projection is standardised
    and the penalty is the usual ``C = 1``, so the scale stays finite where classes are separable.

    Args:
        direction: c, oriented to the target class.
        residuals: of training rows.
        target: whether each row is in the target class.
        what: the name of the direction in a message.

    Raises:
        DataError: if the projection does not vary, or does not rise with the target class.
    """
    projection = residuals.astype(np.float64) @ direction
    mean, spread = projection.mean(), projection.std()
    if not spread > 0:
        raise DataError(f"{what}: all training rows have the same projection: choose another one.")
    fit = LogisticRegression(C=1.0).fit(((projection - mean) / spread)[:, None], target)
    slope = float(fit.coef_[0, 0]) / spread
    if not slope > 0:
        raise DataError(
            f"{what} points away from the target class on training rows, so no margin on it steers "
            "there: choose another concept_direction, or check the concept file and target_class."
        )
    return slope * direction, float(fit.intercept_[0]) - slope * mean
