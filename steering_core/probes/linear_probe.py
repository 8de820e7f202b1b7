"""A linear probe: a direction and a threshold that separate two classes of activations.

Also a floor under the standard deviations by which columns are divided before a fit.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
from jaxtyping import Bool, Float, Shaped

from steering_core.errors import StorageError
from steering_core.storage.arrays import load_arrays, save_arrays

Label = bool | int | float | str


@dataclass(frozen=True, eq=False)
class LinearProbe:
    """Logit ``w·h + b`` in raw activation coordinates; positive means ``classes[1]``.

    Attributes:
        weight_vector: w, float64 of shape (d_model,).
        bias: b.
        classes: the two labels; the label of negative logits comes first.
        regularisation: chosen inverse strength C of the L2 penalty.
        accuracy: mean of ``fold_scores``.
        fold_scores: accuracy on the held-out part of each fold, for the chosen C.
        p_value: one-sided binomial p-value of the out-of-fold predictions against always guessing
            the majority class, Bonferroni-corrected for the number of values of C.
        at_chance: whether ``p_value`` is at least 0.05.
        n_train: number of rows used for the fit.

    """

    weight_vector: Float[np.ndarray, " d_model"]
    bias: float
    classes: tuple[Label, Label]
    regularisation: float
    accuracy: float
    fold_scores: tuple[float, ...]
    p_value: float
    at_chance: bool
    n_train: int

    def decision(self, h: Float[np.ndarray, "n d_model"]) -> Float[np.ndarray, " n"]:
        """Return the logits of the rows of ``h``.

        Raises:
            ValueError: if ``h`` is not of shape (n, d_model).
        """
        h = np.asarray(h, dtype=np.float64)
        if h.ndim != 2 or h.shape[1] != self.weight_vector.size:
            raise ValueError(f"h must be (n, {self.weight_vector.size}), got {h.shape}.")
        return h @ self.weight_vector + self.bias

    def predict(self, h: Float[np.ndarray, "n d_model"]) -> Shaped[np.ndarray, " n"]:
        """Return the label of each row of ``h``; a logit of exactly zero gives ``classes[0]``."""
        return np.array(self.classes)[(self.decision(h) > 0).astype(np.intp)]

    def oriented(self, target_class: Label) -> Self:
        """Return the probe whose positive logits mean ``target_class``; predictions do not change.

        Raises:
            ValueError: if ``target_class`` is not one of the classes.
        """
        if target_class not in self.classes:
            raise ValueError(f"target_class must be one of {self.classes}, got {target_class!r}.")
        if target_class == self.classes[1]:
            return self
        return replace(
            self,
            weight_vector=-self.weight_vector,
            bias=-self.bias,
            classes=(self.classes[1], self.classes[0]),
        )

    def save(self, path: str | Path) -> None:
        """Write the probe to ``path`` (safetensors), atomically."""
        arrays = {
            "weight_vector": self.weight_vector,
            "bias": np.array([self.bias]),
            "fold_scores": np.array(self.fold_scores),
        }
        metadata = {
            "classes": list(self.classes),
            "regularisation": self.regularisation,
            "accuracy": self.accuracy,
            "p_value": self.p_value,
            "at_chance": self.at_chance,
            "n_train": self.n_train,
        }
        save_arrays(path, arrays, metadata)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what :meth:`save` wrote.

        Raises:
            StorageError: if the file is missing, damaged or holds something else.
        """
        arrays, metadata = load_arrays(path)
        try:
            return cls(
                weight_vector=arrays["weight_vector"],
                bias=float(arrays["bias"][0]),
                fold_scores=tuple(arrays["fold_scores"].tolist()),
                classes=tuple(metadata["classes"]),
                regularisation=metadata["regularisation"],
                accuracy=metadata["accuracy"],
                p_value=metadata["p_value"],
                at_chance=metadata["at_chance"],
                n_train=metadata["n_train"],
            )
        except KeyError as error:
            raise StorageError(
                f"{path} holds no probe (no {error}): delete it and run again."
            ) from error


#: The floor as a share of the median standard deviation. In trained models the least variable
#: columns of the residual stream have about half the median, so the floor changes nothing there.
FLOOR = 0.1
#: A column below this share of the largest standard deviation is constant up to float32 rounding.
_CONSTANT = 1e-6


def floored_spread(
    spread: Float[np.ndarray, " d"],
) -> tuple[Float[np.ndarray, " d"], Bool[np.ndarray, " d"]]:
    """Return standard deviations with a floor, and a mask of those it raised from above zero.

    To act on a raw column, the weight of a standardised column is divided by the column's standard
    deviation. For a nearly constant column this weight would be huge and rest on differences that
    may be rounding errors. So the floor is a tenth of the median; constant columns do not count for
    the median.

    Args:
        spread: standard deviation of each column, not negative.
    """
    live = spread > _CONSTANT * spread.max(initial=0.0)
    if not live.any():
        return spread.copy(), np.zeros(spread.shape, dtype=bool)
    floor = FLOOR * float(np.median(spread[live]))
    return np.maximum(spread, floor), (spread > 0) & (spread < floor)
