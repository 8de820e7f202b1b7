"""Checks of the rows on which a probe is fitted or evaluated."""

import numpy as np
from jaxtyping import Bool, Float, Shaped

from steering_core.errors import DataError


def check_rows(
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


def two_classes(labels: Shaped[np.ndarray, " n"]) -> tuple[tuple, Bool[np.ndarray, " n"]]:
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


def check_folds(
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
