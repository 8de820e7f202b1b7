"""The methods that add one fixed direction, learned from training data, to every input."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from steering_core.methods.base import ALPHA, Direction, SteeringMethod, write_directions

if TYPE_CHECKING:
    from steering_core.config.schema import Settings


@dataclass(frozen=True)
class FitData:
    """The data that a fixed direction learns from: training rows and the concept's own texts.

    Residuals are as the site sees them. Test rows, prompts and the evaluation split are excluded.

    Attributes:
        residuals: last-token residuals of the training split.
        labels: their classes, 0 or 1.
        contrast_positive, contrast_negative: residuals of the contrastive pairs, row by row.
        persona_positive, persona_negative: residuals of each query after either persona.
        feature_correlation: Pearson correlation of every feature with the label on the training
            split; NaN where a feature is constant.
        target_class: the class to steer to.
        seed: of the random direction.
        centred: the site removes the mean over d_model, so directions must have mean zero.
        likelihood_gradient: towards the target class; see
            :mod:`steering_core.generation.score_gradients`. Only programs on it need it.

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
    likelihood_gradient: Float[np.ndarray, " d_model"] | None = None

    @classmethod
    def of_examples(
        cls,
        examples: pd.DataFrame,
        matrix: Callable[[pd.Series], Float[np.ndarray, "n d_model"]],
        *,
        target_class: Literal[0, 1],
        centred: bool,
        feature_correlation: Float[np.ndarray, " d_sae"] | None = None,
        seed: int = 0,
    ) -> "FitData":
        """Return the data of a table of examples.

        Args:
            examples: ``example_id``, ``split`` and ``label`` of all examples.
            matrix: returns the residuals of some ids, as the site sees them.
            target_class: the class to steer to.
            centred: whether the site is centred.
            feature_correlation: only the feature methods need it.
            seed: only the random direction needs it.
        """

        def residuals(split: str, label: int | None = None) -> Float[np.ndarray, "n d_model"]:
            rows = examples[examples["split"] == split]
            rows = rows if label is None else rows[rows["label"] == label]
            return matrix(rows["example_id"]).astype(float)

        train = examples[examples["split"] == "train"]
        return cls(
            residuals=residuals("train"),
            labels=train["label"].to_numpy(dtype=int),
            contrast_positive=residuals("contrast", 1),
            contrast_negative=residuals("contrast", 0),
            persona_positive=residuals("persona", 1),
            persona_negative=residuals("persona", 0),
            feature_correlation=np.zeros(0) if feature_correlation is None else feature_correlation,
            target_class=target_class,
            seed=seed,
            centred=centred,
        )

    @property
    def sign(self) -> float:
        """+1 if class 1 is the target, else -1."""
        return 1.0 if self.target_class == 1 else -1.0

    @property
    def residual_norm(self) -> float:
        """Mean norm of the training residuals: the unit of the strength of fixed directions."""
        return float(np.linalg.norm(self.residuals, axis=1).mean())


class FixedDirection(SteeringMethod):
    """A method that adds the same vector to every input.

    Args:
        strength: norm of the vector in units of the mean residual norm at the site. Strengths are
            therefore comparable across these methods, layers and models.

    """

    strength_name = ALPHA

    def __init__(self, strength: float = 1.0):
        if not strength >= 0:
            raise ValueError(f"strength must be >= 0, got {strength}")
        self.strength = strength
        self.direction: Direction | None = None
        self.residual_norm: float | None = None
        self.target_class: int | None = None

    def fit(self, data: FitData, D: Float[np.ndarray, "d_sae d_model"]) -> "FixedDirection":
        """Find the direction from training data, and keep it with the mean residual norm."""
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
        """Return ``strength · mean residual norm · direction``; the probe is not used.

        Raises:
            ValueError: if the method is not fitted, or was fitted for the other class.

        """
        if self.direction is None or self.residual_norm is None:
            raise ValueError(f"{self.name} is not fitted: call fit(data, D) first")
        if target_class != self.target_class:
            raise ValueError(f"target_class is {target_class}, fitted was {self.target_class}")
        return self.strength * self.residual_norm * self.direction.vector


class NoSteering(FixedDirection):
    """Adds zero: the baseline."""

    name = "no_steering"

    def __init__(self) -> None:
        super().__init__(strength=0.0)

    def find(self, data: FitData, D: Float[np.ndarray, "d_sae d_model"]) -> Direction:
        """Return the zero vector, through no feature."""
        return Direction(
            np.zeros(data.residuals.shape[1]), np.zeros(0, dtype=np.int64), np.zeros(0)
        )


class RandomDirection(FixedDirection):
    """A seeded direction, uniform on the sphere."""

    name = "random_direction"

    def find(self, data: FitData, D: Float[np.ndarray, "d_sae d_model"]) -> Direction:
        """Draw the direction. It is not oriented to a class."""
        draw = np.random.default_rng(data.seed).standard_normal(data.residuals.shape[1])
        if data.centred:
            draw -= draw.mean()
        return Direction(_unit(draw, self.name))


class CAAMeanDiff(FixedDirection):
    """Difference of the class means of the training split."""

    name = "caa_mean_diff"

    def find(self, data: FitData, D: Float[np.ndarray, "d_sae d_model"]) -> Direction:
        """Return the normalised difference of means."""
        ones = data.labels == 1
        difference = data.residuals[ones].mean(axis=0) - data.residuals[~ones].mean(axis=0)
        return Direction(_unit(data.sign * difference, self.name))


class CAAContrastive(FixedDirection):
    """Mean difference over contrastive pairs (Panickssery et al. 2023, arXiv:2312.06681)."""

    name = "caa_contrastive"

    def find(self, data: FitData, D: Float[np.ndarray, "d_sae d_model"]) -> Direction:
        """Return the normalised mean of the pair differences."""
        difference = (data.contrast_positive - data.contrast_negative).mean(axis=0)
        return Direction(_unit(data.sign * difference, self.name))


class CAARepE(FixedDirection):
    """First principal component of persona differences (Zou et al. 2023, arXiv:2310.01405).

    The differences are not centred, because their common part is the concept. PCA does not fix the
    sign; the sign of their mean is used.
    """

    name = "caa_repe"

    def find(self, data: FitData, D: Float[np.ndarray, "d_sae d_model"]) -> Direction:
        """Return the first right singular vector of the differences, sign-corrected."""
        differences = data.persona_positive - data.persona_negative
        component = np.linalg.svd(differences, full_matrices=False)[2][0]
        if component @ differences.mean(axis=0) < 0:
            component = -component
        return Direction(_unit(data.sign * component, self.name))


class SingleFeature(FixedDirection):
    """The decoder row of the feature that correlates most with the target class."""

    name = "single_feature"

    def find(self, data: FitData, D: Float[np.ndarray, "d_sae d_model"]) -> Direction:
        """Return that row; constant features and zero decoder rows are left out."""
        correlation = _usable(data, D)
        best = int(np.argmax(np.where(np.isnan(correlation), -np.inf, correlation)))
        return _combine(D, np.array([best]), np.array([1.0]))


class TopKFeatures(FixedDirection):
    """The k features with the largest absolute correlation, weighted by it.

    A feature that correlates negatively with the target class has a negative coefficient.
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


#: The class of every registered method of the family ``directions``, by name.
DIRECTIONS: dict[str, type[FixedDirection]] = {
    method.name: method
    for method in (
        NoSteering,
        RandomDirection,
        CAAMeanDiff,
        CAAContrastive,
        CAARepE,
        SingleFeature,
        TopKFeatures,
    )
}


#: The method that finds each direction that is learned from residuals alone.
FOUND_BY = {
    "mean_difference": "caa_mean_diff",
    "contrastive": "caa_contrastive",
    "repe": "caa_repe",
}


def make_direction(method: str, topk: int) -> FixedDirection:
    """Return the method of this name, not fitted; ``topk`` is the ``k`` of :class:`TopKFeatures`.

    Raises:
        KeyError: if ``method`` is not a fixed direction.
    """
    kind = DIRECTIONS[method]
    return TopKFeatures(k=topk) if kind is TopKFeatures else kind()


def fixed_methods(settings: "Settings") -> list[FixedDirection]:
    """Return the configured methods that add one fixed direction, not fitted."""
    return [make_direction(name, settings.topk) for name in DIRECTIONS if name in settings.methods]


def fit_directions(
    methods: Sequence[FixedDirection],
    data: FitData,
    D: Float[np.ndarray, "d_sae d_model"],
    path: str | Path,
) -> None:
    """Find the unit directions of ``methods`` and write them with the mean residual norm.

    Args:
        methods: not fitted.
        data: training rows, pairs and correlations.
        D: decoder, a row per feature.
        path: safetensors file to write.

    Raises:
        ValueError: naming what gives no direction.
    """
    directions = {method.name: method.find(data, D) for method in methods}
    write_directions(path, directions, data.residual_norm, data.target_class)


def _unit(vector: Float[np.ndarray, " d_model"], what: str) -> Float[np.ndarray, " d_model"]:
    """Scale to unit norm.

    Raises:
        ValueError: if the vector is zero: there is no direction in it.

    """
    norm = float(np.linalg.norm(vector))
    if not norm > 0:
        raise ValueError(f"{what}: the direction is zero")
    return vector / norm


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
