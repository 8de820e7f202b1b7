"""Fit a linear probe by logistic regression, and evaluate it on other rows.

:func:`calibrated` makes a probe of any direction: its projection in logits.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from steering_core.errors import DataError
from steering_core.probes.linear_probe import FLOOR, LinearProbe, floored_spread

log = logging.getLogger(__name__)

REGULARISATIONS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # also the default of the configuration
SIGNIFICANCE = 0.05


@dataclass(frozen=True)
class ProbeReport:
    """The accuracy of a probe on rows it has not seen.

    Attributes:
        accuracy: share of correct predictions.
        auc: area under the ROC curve.
        chance: share of the larger class: the accuracy of always guessing it.
        n: number of rows.
        p_value: one-sided binomial p-value against always guessing the majority class, with rows
            taken as independent.
        at_chance: whether ``p_value`` is at least 0.05.
    """

    accuracy: float
    auc: float
    chance: float
    n: int
    p_value: float
    at_chance: bool


def fit_probe(
    h: Float[np.ndarray, "n d_model"],
    labels: Shaped[np.ndarray, " n"],
    *,
    seed: int,
    groups: Shaped[np.ndarray, " n"] | None = None,
    regularisations: Sequence[float] = REGULARISATIONS,
    n_folds: int = 5,
    centred: bool = False,
) -> LinearProbe:
    """Fit L2-regularised logistic regression on standardised activations.

    Columns are divided by at least a tenth of the median standard deviation
    (:func:`steering_core.probes.linear_probe.floored_spread`). Without this floor a nearly constant
    column could make up the whole weight. A warning says how much of the weight such columns carry.

    Cross-validation chooses the inverse strength C with the best log loss; the smallest C wins
    ties. The final fit with this C uses all rows, and its weights are mapped back to raw
    coordinates. The fold scores are slightly optimistic because they also chose C; the p-value is
    corrected for this. Use :func:`evaluate_probe` on other rows to judge the probe.

    Args:
        h: activations, any float type.
        labels: two distinct values; the larger is the class of positive logits.
        seed: seed of the shuffling into folds.
        groups: rows with equal values are never on both sides of a fold.
        regularisations: values of C to choose from.
        n_folds: number of folds, at least 2.
        centred: True if the rows of ``h`` have mean zero, as for an SAE with centred writing
            weights. The weight is then projected onto vectors of mean zero, which does not change
            the logits of such rows.

    Raises:
        DataError: if there are not two classes, a class has too few rows or groups, an activation
            is not finite, or ``centred`` is set and a row is not centred.
        ValueError: if an argument has the wrong shape or range.
    """
    h, labels = _check_rows(h, labels)
    classes, positive = _two_classes(labels)
    candidates = _candidates(regularisations)
    groups = _check_folds(positive, groups, n_folds, classes)
    if centred:
        _check_centred(h)
    folds = _folds(positive, groups, n_folds, seed)
    logits = _logits_out_of_fold(h, positive, folds, candidates)
    losses = np.logaddexp(0.0, np.where(positive, -logits, logits)).mean(axis=1)
    best = int(losses.argmin())
    right = (logits[best] > 0) == positive
    scores = tuple(float(right[test].mean()) for _, test in folds)
    # Bonferroni: the best of several candidates beats chance more easily than one.
    p_value = min(1.0, len(candidates) * _chance_p_value(right, positive))
    model = _pipeline(candidates[best]).fit(h, positive)
    weight, bias = _raw_coordinates(model)
    _warn_of_floored(weight, model[0].floored_)
    if centred:
        weight = weight - weight.mean()
    return LinearProbe(
        weight_vector=weight,
        bias=bias,
        classes=classes,
        regularisation=float(candidates[best]),
        accuracy=float(np.mean(scores)),
        fold_scores=scores,
        p_value=p_value,
        at_chance=p_value >= SIGNIFICANCE,
        n_train=labels.size,
    )


def evaluate_probe(
    probe: LinearProbe, h: Float[np.ndarray, "n d_model"], labels: Shaped[np.ndarray, " n"]
) -> ProbeReport:
    """Evaluate ``probe`` on rows it was not fitted on.

    Args:
        probe: the probe.
        h: residuals, a row per example.
        labels: class of each row, of the probe's two classes.

    Raises:
        DataError: if the labels are not the probe's two classes, or an activation is not finite.
        ValueError: if the shapes do not fit.
    """
    h, labels = _check_rows(h, labels)
    classes, _ = _two_classes(labels)
    if set(classes) != set(probe.classes):
        raise DataError(
            f"labels are {classes}, but the probe was fitted on the classes {probe.classes}."
        )
    positive = labels == probe.classes[1]
    logits = probe.decision(h)
    right = (logits > 0) == positive
    p_value = _chance_p_value(right, positive)
    return ProbeReport(
        accuracy=float(right.mean()),
        auc=float(roc_auc_score(positive, logits)),
        chance=_chance(positive),
        n=labels.size,
        p_value=p_value,
        at_chance=p_value >= SIGNIFICANCE,
    )


def _candidates(regularisations: Sequence[float]) -> list[float]:
    candidates = sorted(set(regularisations))
    if not candidates or candidates[0] <= 0:
        raise ValueError(f"regularisations must be positive numbers, got {regularisations}.")
    return candidates


class _FlooredScaler(StandardScaler):
    """Standardisation with a floor on the standard deviations.

    ``floored_`` marks the columns whose standard deviation was below the floor.
    """

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Fit as the parent does, then apply the floor to ``scale_`` (1 for a constant column)."""
        super().fit(X, y, sample_weight)
        constant = (self.scale_ == 1.0) & (self.var_ < 1.0)
        scale, self.floored_ = floored_spread(np.where(constant, 0.0, self.scale_))
        self.scale_ = np.where(constant, 1.0, scale)
        return self


def _warn_of_floored(weight: Float[np.ndarray, " d"], floored: Bool[np.ndarray, " d"]) -> None:
    if floored.any():
        size = float(np.linalg.norm(weight))
        share = float(np.linalg.norm(weight[floored])) / size if size else 0.0
        log.warning(
            "%d of %d columns vary less than %g times as much as the median column, the first is "
            "column %d; they are divided by this floor and carry %.2g of the norm of the "
            "probe's weight",
            floored.sum(),
            floored.size,
            FLOOR,
            floored.argmax(),
            share,
        )


def _pipeline(regularisation: float) -> Pipeline:
    # With fewer rows than columns lbfgs needs well under a second at these sizes.
    return make_pipeline(
        _FlooredScaler(), LogisticRegression(C=regularisation, solver="lbfgs", max_iter=5000)
    )


def _raw_coordinates(model: Pipeline) -> tuple[Float[np.ndarray, " d_model"], float]:
    scaler, regression = model[0], model[1]
    weight = regression.coef_[0] / scaler.scale_
    return weight, float(regression.intercept_[0] - weight @ scaler.mean_)


def _folds(
    positive: Bool[np.ndarray, " n"],
    groups: Shaped[np.ndarray, " n"] | None,
    n_folds: int,
    seed: int,
) -> list[tuple[Int[np.ndarray, " a"], Int[np.ndarray, " b"]]]:
    splitter = StratifiedKFold if groups is None else StratifiedGroupKFold
    split = splitter(n_folds, shuffle=True, random_state=seed).split(positive, positive, groups)
    folds = list(split)
    for train, test in folds:
        if test.size == 0 or positive[train].all() or not positive[train].any():
            raise DataError(
                f"the groups cannot be divided into {n_folds} folds with both classes in each "
                "training part: use fewer folds, more rows or smaller groups."
            )
    return folds


def _logits_out_of_fold(
    h: Float[np.ndarray, "n d_model"],
    positive: Bool[np.ndarray, " n"],
    folds: list[tuple[Int[np.ndarray, " a"], Int[np.ndarray, " b"]]],
    candidates: Sequence[float],
) -> Float[np.ndarray, "c n"]:
    """Return the logit of each held-out row, for every C."""
    logits = np.zeros((len(candidates), positive.size))
    for train, test in folds:
        scaler = _FlooredScaler().fit(h[train])
        fitted, held_out = scaler.transform(h[train]), scaler.transform(h[test])
        for row, regularisation in zip(logits, candidates, strict=True):
            regression = _pipeline(regularisation)[1].fit(fitted, positive[train])
            row[test] = regression.decision_function(held_out)
    return logits


def _chance(positive: Bool[np.ndarray, " n"]) -> float:
    return float(max(positive.mean(), 1 - positive.mean()))


def _chance_p_value(right: Bool[np.ndarray, " n"], positive: Bool[np.ndarray, " n"]) -> float:
    test = binomtest(int(right.sum()), right.size, _chance(positive), alternative="greater")
    return float(test.pvalue)


def _check_centred(h: Float[np.ndarray, "n d_model"]) -> None:
    spread = np.sqrt(np.square(h).mean(axis=1))
    off = np.abs(h.mean(axis=1)) > 1e-3 * spread
    if off.any():
        raise DataError(
            f"{off.sum()} of {off.size} rows do not have mean zero (the first is row "
            f"{off.argmax()}): the model's writing weights are not centred as the SAE expects."
        )


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


def _check_rows(
    h: Float[np.ndarray, "n d_model"], labels: Shaped[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, "n d_model"], Shaped[np.ndarray, " n"]]:
    """Return activations as float64 with their labels.

    Raises:
        ValueError: if the shapes do not fit.
        DataError: if an activation is NaN or infinite.
    """
    h, labels = np.asarray(h, dtype=np.float64), np.asarray(labels)
    if h.ndim != 2:
        raise ValueError(f"h must be (n, d_model), got {h.shape}.")
    if labels.shape != h.shape[:1]:
        raise ValueError(
            f"labels must have shape {h.shape[:1]} like the rows of h, got {labels.shape}."
        )
    bad = ~np.isfinite(h).all(axis=1)
    if bad.any():
        raise DataError(
            f"NaN or infinite activations in {bad.sum()} of {bad.size} rows, the first of them "
            f"row {bad.argmax()}: compute the activations again, in float32 or bfloat16 if the "
            "model ran in float16."
        )
    return h, labels


def _two_classes(labels: Shaped[np.ndarray, " n"]) -> tuple[tuple, Bool[np.ndarray, " n"]]:
    """Return the two labels in ascending order, and a mask of the rows with the second label.

    Raises:
        DataError: if there are not exactly two.
    """
    classes = np.unique(labels)
    if classes.size != 2:
        shown = ", ".join(map(repr, classes[:5].tolist())) + (", …" if classes.size > 5 else "")
        raise DataError(
            f"labels must have two classes, found {classes.size} ({shown}): choose a label column "
            "with two values or set a threshold."
        )
    return tuple(classes.tolist()), labels == classes[1]


def _check_folds(
    positive: Bool[np.ndarray, " n"],
    groups: Shaped[np.ndarray, " n"] | None,
    n_folds: int,
    classes: tuple,
) -> Shaped[np.ndarray, " n"] | None:
    """Return ``groups`` as an array; every class needs ``n_folds`` rows and ``n_folds`` groups.

    Raises:
        ValueError: if there are fewer than two folds, or ``groups`` has another shape.
        DataError: if a class has fewer.
    """
    if n_folds < 2:
        raise ValueError(f"n_folds must be at least 2, got {n_folds}.")
    if groups is not None:
        groups = np.asarray(groups)
        if groups.shape != positive.shape:
            raise ValueError(f"groups must have shape {positive.shape}, got {groups.shape}.")
    for label, rows in zip(classes, (~positive, positive), strict=True):
        count = rows.sum() if groups is None else np.unique(groups[rows]).size
        if count < n_folds:
            unit = "rows" if groups is None else "groups"
            raise DataError(
                f"class {label!r} has {count} {unit}, too few for {n_folds} folds: sample more "
                f"rows of it or use at most {count} folds."
                if count >= 2
                else f"class {label!r} has only {count} {unit}: sample more rows of it."
            )
    return groups
