"""What all steering methods share."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True)
class FitData:
    """All that a fixed direction may learn from: training rows and the concept's own texts.

    Residuals are as the site sees them. Test rows, prompts and the evaluation split are not here.

    Attributes:
        residuals: last-token residuals of the training split.
        labels: their classes, 0 or 1.
        contrast_positive, contrast_negative: residuals of the contrastive pairs, row by row.
        persona_positive, persona_negative: residuals of each query after either persona.
        feature_correlation: Pearson correlation of every feature with the label on the training
            split; NaN where a feature is constant.
        target_class: the class to steer to.
        seed: of the random direction.
        centred: the site removes the mean over d_model, so directions must have none.

    """

    residuals: Float[np.ndarray, "n d_model"]
    labels: Int[np.ndarray, " n"]
    contrast_positive: Float[np.ndarray, "pairs d_model"]
    contrast_negative: Float[np.ndarray, "pairs d_model"]
    persona_positive: Float[np.ndarray, "queries d_model"]
    persona_negative: Float[np.ndarray, "queries d_model"]
    feature_correlation: Float[np.ndarray, " d_sae"]
    target_class: Literal[0, 1] = 1
    seed: int = 0
    centred: bool = False

    @property
    def sign(self) -> float:
        """+1 if class 1 is the target, else -1."""
        return 1.0 if self.target_class == 1 else -1.0

    @property
    def residual_norm(self) -> float:
        """Mean norm of the training residuals: the unit of the strength of fixed directions."""
        return float(np.linalg.norm(self.residuals, axis=1).mean())


@dataclass(frozen=True)
class Direction:
    """A fixed direction of unit norm, and its coefficients if it acts through features.

    ``vector == coefficients @ decoder[features]`` for a feature method; for the others
    ``features`` and ``coefficients`` are None.
    """

    vector: Float[np.ndarray, " d_model"]
    features: Int[np.ndarray, " k"] | None = None
    coefficients: Float[np.ndarray, " k"] | None = None


class SteeringMethod(ABC):
    """A steering method."""

    #: Name in the configuration and in every table.
    name: str
    #: What a strength of this method means.
    strength_name: str

    @abstractmethod
    def compute_steering_vector(
        self,
        h: Float[np.ndarray, " d_model"],
        probe_w: Float[np.ndarray, " d_model"],
        probe_b: float,
        D: Float[np.ndarray, "d_sae d_model"],
        sae_features: Float[np.ndarray, " d_sae"] | None = None,
        target_class: Literal[0, 1] = 1,
    ) -> Float[np.ndarray, " d_model"]:
        """Return the vector to add to residual ``h``.

        Args:
            h: the residual, as the site sees it.
            probe_w: weights of the linear probe; its logit is ``probe_w @ h + probe_b``.
            probe_b: its bias.
            D: decoder rows.
            sae_features: feature activations at ``h``; no method here needs them.
            target_class: the class to steer to.

        """


class FixedDirection(SteeringMethod):
    """A method that adds the same vector to every input.

    Args:
        strength: norm of the vector in units of the mean residual norm at the site, so that
            strengths compare across these methods, layers and models.

    """

    strength_name = "alpha"

    def __init__(self, strength: float = 1.0):
        if not strength >= 0:
            raise ValueError(f"strength must be >= 0, got {strength}")
        self.strength = strength
        self.direction: Direction | None = None
        self.residual_norm: float | None = None
        self.target_class: int | None = None

    def fit(self, data: FitData, D: Float[np.ndarray, "d_sae d_model"]) -> "FixedDirection":
        """Find the direction from training data."""
        self.direction = self.find(data, D)
        self.residual_norm = data.residual_norm
        self.target_class = data.target_class
        return self

    @abstractmethod
    def find(self, data: FitData, D: Float[np.ndarray, "d_sae d_model"]) -> Direction:
        """Return the unit direction towards the target class."""

    def compute_steering_vector(
        self,
        h: Float[np.ndarray, " d_model"],
        probe_w: Float[np.ndarray, " d_model"],
        probe_b: float,
        D: Float[np.ndarray, "d_sae d_model"],
        sae_features: Float[np.ndarray, " d_sae"] | None = None,
        target_class: Literal[0, 1] = 1,
    ) -> Float[np.ndarray, " d_model"]:
        """Return ``strength · mean residual norm · direction``; the probe plays no part.

        Raises:
            ValueError: if the method is not fitted, or was fitted for the other class.

        """
        if self.direction is None or self.residual_norm is None:
            raise ValueError(f"{self.name} is not fitted: call fit(data, D) first")
        if target_class != self.target_class:
            raise ValueError(f"target_class is {target_class}, fitted was {self.target_class}")
        return self.strength * self.residual_norm * self.direction.vector


def unit(vector: Float[np.ndarray, " d_model"], what: str) -> Float[np.ndarray, " d_model"]:
    """Scale to unit norm.

    Raises:
        ValueError: if the vector is zero: there is no direction in it.

    """
    norm = float(np.linalg.norm(vector))
    if not norm > 0:
        raise ValueError(f"{what}: the direction is zero")
    return vector / norm
