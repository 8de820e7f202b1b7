"""A concept subspace: several directions with a threshold each, from labelled residuals."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from steering_core.optimize.checks import as_float64, at_least


@dataclass(frozen=True)
class ConceptSubspace:
    """Directions that separate two classes, oriented to the target class.

    Attributes:
        directions: orthonormal rows, ``(k, d_model)``; the most separating first.
        thresholds: mean of the target class along each direction, ``(k,)``.
        separation: distance of the class means along each direction in units of the pooled
            standard deviation, ``(k,)``, falling.
    """

    directions: Float[np.ndarray, "k d_model"]
    thresholds: Float[np.ndarray, " k"]
    separation: Float[np.ndarray, " k"]

    def shortfall(self, residuals: Float[np.ndarray, "n d_model"]) -> Float[np.ndarray, "n k"]:
        """By how much each residual misses each threshold; <= 0 where it does not.

        Raises:
            ValueError: naming ``residuals``.
        """
        residuals = as_float64("residuals", residuals, 2)
        if residuals.shape[1] != self.directions.shape[1]:
            raise ValueError(
                f"residuals must be (n, {self.directions.shape[1]}), not {residuals.shape}."
            )
        return self.thresholds - residuals @ self.directions.T


def fit_subspace(
    residuals: Any, labels: Any, target: int = 1, n_components: int = 50, k: int = 5
) -> ConceptSubspace:
    """Supervised PCA: principal components of the centred residuals, the k most separating.

    Args:
        residuals: ``(n, d_model)``.
        labels: 0 or 1, ``(n,)``.
        target: the class steered to.
        n_components: principal components looked at; as many as there are if fewer.
        k: directions kept.

    Raises:
        ValueError: naming the argument, also if one class is missing or the residuals have fewer
            than k components.
    """
    residuals = as_float64("residuals", residuals, 2)
    labels = np.asarray(labels)
    if labels.shape != (len(residuals),) or set(np.unique(labels)) != {0, 1}:
        raise ValueError(f"labels must hold both 0 and 1, {len(residuals)} in all.")
    if target not in (0, 1):
        raise ValueError(f"target must be 0 or 1, not {target}.")
    k, n_components = at_least("k", k, 1), at_least("n_components", n_components, 1)
    if k > n_components:
        raise ValueError(f"k must be between 1 and n_components = {n_components}, not {k}.")
    _, size, rows = np.linalg.svd(residuals - residuals.mean(axis=0), full_matrices=False)
    rows = rows[size > 1e-10 * size[0]][:n_components]
    if len(rows) < k:
        raise ValueError(f"residuals have {len(rows)} principal components, fewer than k = {k}.")
    scores = residuals @ rows.T
    inside, outside = scores[labels == target], scores[labels != target]
    pooled = (inside.var(axis=0) * len(inside) + outside.var(axis=0) * len(outside)) / len(scores)
    apart = inside.mean(axis=0) - outside.mean(axis=0)
    apart /= np.sqrt(np.maximum(pooled, np.finfo(float).tiny))
    best = np.argsort(-np.abs(apart), kind="stable")[:k]
    sign = np.where(apart[best] < 0, -1.0, 1.0)
    return ConceptSubspace(
        sign[:, None] * rows[best], sign * inside.mean(axis=0)[best], np.abs(apart[best])
    )
