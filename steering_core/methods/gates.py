"""Gates: a method that acts only where a condition on the residual holds.

The condition is a half-space, ``w·h + b > 0``. A probe's logit below a threshold is one, and so is
a feature of an SAE above a threshold, where its activation depends on its own encoder row alone.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from steering_core.errors import DataError


@dataclass(frozen=True, eq=False)
class Gate:
    """Where to steer: at residuals with ``w·h + b > 0``.

    Attributes:
        weight: w, for residuals as the site sees them.
        bias: b.
    """

    weight: Float[np.ndarray, " d_model"]
    bias: float

    @classmethod
    def probe_below(
        cls, weight: Float[np.ndarray, " d_model"], bias: float, logit: float
    ) -> "Gate":
        """Open where the logit of an oriented probe is below ``logit``."""
        return cls(-weight, logit - bias)

    def open(self, residuals: Float[np.ndarray, "n d_model"]) -> Bool[np.ndarray, " n"]:
        """Return which residuals, as the site sees them, are steered."""
        return residuals.astype(np.float64) @ self.weight + self.bias > 0


def feature_gate(
    row: Float[np.ndarray, " d_model"],
    encode: Callable[[Float[np.ndarray, "n d_model"]], Float[np.ndarray, " n"]],
    above: float,
    residuals: Float[np.ndarray, "n d_model"],
    name: str,
) -> Gate:
    """Return the gate that is open where a feature's activation is above a threshold.

    Scale and bias of the encoder row are read off the activations themselves, and the gate is then
    checked on every residual. So it does not depend on how an SAE normalises or centres.

    Args:
        row: the feature's encoder row; its length does not matter.
        encode: gives the feature's activations.
        above: the threshold, >= 0.
        residuals: of training rows, as the site sees them.
        name: of the feature, for messages.

    Raises:
        DataError: if the feature is above the threshold at no training row or at all of them, or if
            its activation is no function of its encoder row alone.
    """
    residuals = residuals.astype(np.float64)
    open_, along = encode(residuals) > above, residuals @ row
    if open_.all() or not open_.any():
        share = "all" if open_.all() else "none"
        raise DataError(
            f"gate: {name} is above {above:g} at {share} of the training rows, so it tells no "
            "texts apart: choose another feature or threshold"
        )
    lowest, highest = along[open_].min(), along[~open_].max()
    if not highest < lowest:
        raise DataError(
            f"gate: whether {name} is above {above:g} depends on more than its own encoder row, as "
            "in TopK SAEs: gate on the probe instead"
        )
    # Between the two the activation itself says where the threshold is.
    inside = residuals[open_][along[open_].argmin()]
    outside = residuals[~open_][along[~open_].argmax()]
    for _ in range(60):
        middle = 0.5 * (inside + outside)
        if bool(encode(middle[None])[0] > above):
            inside = middle
        else:
            outside = middle
    return Gate(row, -0.5 * float(row @ (inside + outside)))


def gated_rows(
    name: str,
    rows: pd.DataFrame,
    vectors: Float[np.ndarray, "n d_model"],
    opened: Mapping[str, bool],
) -> tuple[pd.DataFrame, Float[np.ndarray, "m d_model"], Int[np.ndarray, " n"]]:
    """Return the solution rows of a gated method, its different vectors, and which each row adds.

    The sizes of a row are those at its own residual, the last token: zero where the gate is closed
    there. A row outside the prompts has no other position, so its vector is zero too. A prompt
    keeps its vector, since the gate is asked again at every position of its text.

    Args:
        name: of the gated method.
        rows: solution rows of the method behind the gate.
        vectors: what each adds; NaN without a solution.
        opened: whether the gate is open at each input's residual.
    """
    shut = ~rows["example_id"].map(opened).to_numpy(dtype=bool)
    sizes = {
        size: rows[size].mask(shut & rows[size].notna(), 0.0)
        for size in ("residual_norm", "l0", "l1")
    }
    alone = shut & rows["split"].isin(["validation", "test"]).to_numpy()
    vectors = np.where((alone & np.isfinite(vectors).all(axis=1))[:, None], 0.0, vectors)
    different, index = np.unique(vectors, axis=0, return_inverse=True)
    gated = rows.drop(columns="vector", errors="ignore").assign(method=name, **sizes)
    return gated, different, index.reshape(len(rows)).astype(np.int64)
