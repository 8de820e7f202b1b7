"""What the methods of optimal sparse steering learn from, and what they then add."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Int

if TYPE_CHECKING:
    from steering_core.corrsteer.bridge_programs import Everywhere

Residuals = Float[np.ndarray, "n d_model"]
#: Residuals of texts that should differ in success: after what succeeds, and after what fails.
Pairs = tuple[Residuals, Residuals]


@dataclass(frozen=True)
class Learned:
    """What the methods learn from, at one site.

    Attributes:
        residuals: of the training prompts, at their last token.
        success: whether the unsteered model succeeded on them.
        dictionary: unit decoder rows of the selected features.
        correlation: of each of these features with success.
        contrast: returns residuals of prompts with right and with wrong answers.
        personas: returns residuals of prompts after the instruction to succeed, and to fail.
        shared_by: of the validation prompts, at their last token: what a shared vector is for.
        seed: of the probe's folds and the random direction.
        centred: the site removes the mean over d_model.
    """

    residuals: Residuals
    success: Bool[np.ndarray, " n"]
    dictionary: Float[np.ndarray, "m d_model"]
    correlation: Float[np.ndarray, " m"]
    contrast: Callable[[], Pairs]
    personas: Callable[[], Pairs]
    shared_by: Residuals
    seed: int
    centred: bool


@dataclass(frozen=True)
class Added:
    """What is added to each of n rows.

    Attributes:
        vectors: (n, d_model); NaN where there is no solution.
        n_features: features used, (n,); None for a method that does not act through features.
        reason: why a row has no vector; empty where it has one.
        note: a caveat on all of them; empty where there is none.
        everywhere: a program that is solved anew at every position, in place of the vectors,
            which are then those of the first; None for a vector that stays.
    """

    vectors: Residuals
    n_features: Int[np.ndarray, " n"] | None
    reason: list[str] = field(default_factory=list)
    note: str = ""
    everywhere: "Everywhere | None" = None


@dataclass(frozen=True)
class Strength:
    """One strength of a method, and what it adds to rows with given residuals."""

    name: str
    add: Callable[[Residuals], Added]
