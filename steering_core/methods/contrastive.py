"""Contrastive activation addition in three forms, all oriented to the target class."""

import numpy as np
from jaxtyping import Float

from steering_core.methods.base import Direction, FitData, FixedDirection, unit


class CAAMeanDiff(FixedDirection):
    """Difference of the class means of the training split."""

    name = "caa_mean_diff"

    def find(self, data: FitData, D: Float[np.ndarray, "d_sae d_model"]) -> Direction:
        """Return the normalised difference of means."""
        ones = data.labels == 1
        difference = data.residuals[ones].mean(axis=0) - data.residuals[~ones].mean(axis=0)
        return Direction(unit(data.sign * difference, self.name))


class CAAContrastive(FixedDirection):
    """Mean difference over contrastive pairs (Panickssery et al. 2023, arXiv:2312.06681)."""

    name = "caa_contrastive"

    def find(self, data: FitData, D: Float[np.ndarray, "d_sae d_model"]) -> Direction:
        """Return the normalised mean of the pair differences."""
        difference = (data.contrast_positive - data.contrast_negative).mean(axis=0)
        return Direction(unit(data.sign * difference, self.name))


class CAARepE(FixedDirection):
    """First principal component of persona differences (Zou et al. 2023, arXiv:2310.01405).

    The differences are not centred: their common part is the concept. The sign, which PCA leaves
    open, is that of their mean.
    """

    name = "caa_repe"

    def find(self, data: FitData, D: Float[np.ndarray, "d_sae d_model"]) -> Direction:
        """Return the first right singular vector of the differences, sign-corrected."""
        differences = data.persona_positive - data.persona_negative
        component = np.linalg.svd(differences, full_matrices=False)[2][0]
        if component @ differences.mean(axis=0) < 0:
            component = -component
        return Direction(unit(data.sign * component, self.name))
