"""Steering with a few SAE features chosen by their correlation with the label."""

import numpy as np
from jaxtyping import Float, Int

from steering_core.methods.base import Direction, FitData, FixedDirection


class SingleFeature(FixedDirection):
    """The decoder row of the feature that correlates most with the target class."""

    name = "single_feature"

    def find(self, data: FitData, D: Float[np.ndarray, "d_sae d_model"]) -> Direction:
        """Return that row; features that never vary or have no decoder row do not compete."""
        correlation = _usable(data, D)
        best = int(np.argmax(np.where(np.isnan(correlation), -np.inf, correlation)))
        return _combine(D, np.array([best]), np.array([1.0]))


class TopKFeatures(FixedDirection):
    """The k features with the largest absolute correlation, weighted by it.

    A feature that speaks against the target class is subtracted, so coefficients may be negative.
    """

    name = "topk_features"

    def __init__(self, strength: float = 1.0, k: int = 10):
        super().__init__(strength)
        if k < 1:
            raise ValueError(f"k must be >= 1, got {k}")
        self.k = k

    def find(self, data: FitData, D: Float[np.ndarray, "d_sae d_model"]) -> Direction:
        """Return the normalised weighted sum of rows."""
        correlation = _usable(data, D)
        order = np.argsort(-np.nan_to_num(np.abs(correlation)), kind="stable")[: self.k]
        order = order[np.nan_to_num(correlation[order]) != 0]
        return _combine(D, order, correlation[order])


def _usable(data: FitData, D: Float[np.ndarray, "d_sae d_model"]) -> Float[np.ndarray, " d_sae"]:
    correlation = np.where(
        np.linalg.norm(D, axis=1) > 0, data.sign * data.feature_correlation, np.nan
    )
    if np.isnan(correlation).all():
        raise ValueError("feature_correlation: no feature varies over the training rows")
    return correlation


def _combine(
    D: Float[np.ndarray, "d_sae d_model"],
    features: Int[np.ndarray, " k"],
    weights: Float[np.ndarray, " k"],
) -> Direction:
    vector = weights @ D[features].astype(np.float64)
    norm = np.linalg.norm(vector)
    if not norm > 0:
        raise ValueError("the chosen decoder rows cancel: there is no direction")
    return Direction(vector / norm, features, weights / norm)
