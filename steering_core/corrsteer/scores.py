"""The numbers that features are chosen by: a pooled activation, and how it goes with success.

:class:`PooledStatistic` is the number of a sample and feature that selection accumulates. A score
is a number per feature, larger is better, NaN where it is not defined. A feature's direction is
the same for all scores: the sign of the difference of its means over successful and failed samples,
which is the sign of Pearson's r. To add a score, write a function and add it to :data:`SCORES`.

This module imports no model library, because the workflow reads it at every start.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from jaxtyping import Float, Int, Shaped

from steering_core.statistics.moments import CorrelationResult

if TYPE_CHECKING:
    from steering_core.config.corrsteer_schema import Arm
    from steering_core.corrsteer.accumulate import Accumulator, Accumulators

Space = Literal["features", "raw"]
Mask = Literal["generation", "all"]
Pooling = Literal["max", "mean"]


@dataclass(frozen=True, order=True)
class PooledStatistic:
    """A number per sample and feature: an activation, pooled over positions.

    Attributes:
        space: ``features`` of an SAE, or the ``raw`` dimensions of the residual stream.
        mask: ``generation`` are the positions that produce a token: the last of the prompt and
            every generated one that was fed back. ``all`` adds the rest of the prompt, without
            padding and without BOS.
        pooling: over those positions.
    """

    space: Space = "features"
    mask: Mask = "generation"
    pooling: Pooling = "max"

    def __str__(self) -> str:
        return f"{self.space}-{self.mask}-{self.pooling}"

    @classmethod
    def parse(cls, text: str) -> "PooledStatistic":
        """Return the statistic from its text."""
        space, mask, pooling = text.split("-")
        return cls(space, mask, pooling)  # type: ignore[arg-type]


def statistic_of(arm: "Arm", task_pooling: Pooling) -> PooledStatistic:
    """Return the statistic that the arm scores features on."""
    pooling = task_pooling if arm.pooling == "task" else arm.pooling
    return PooledStatistic(arm.space, arm.mask, pooling)


def coefficient_statistic_of(arm: "Arm", task_pooling: Pooling) -> PooledStatistic:
    """Return the statistic that the arm takes coefficients from."""
    scored = statistic_of(arm, task_pooling)
    if arm.coefficient_pooling == "same":
        return scored
    return PooledStatistic(arm.space, arm.mask, arm.coefficient_pooling)


def statistics_of(arms: Mapping[str, "Arm"], task_pooling: Pooling) -> tuple[list[str], list[str]]:
    """Return, as text, the statistics to accumulate and those that need a histogram."""
    own = [arm for arm in arms.values() if arm.selects]
    scored = {statistic_of(arm, task_pooling) for arm in own}
    measured = {coefficient_statistic_of(arm, task_pooling) for arm in own}
    histograms = {
        statistic_of(arm, task_pooling) for arm in own if arm.score == "mutual_information"
    }
    return [str(s) for s in sorted(scored | measured)], [str(s) for s in sorted(histograms)]


def needs_validation(arm: "Arm") -> bool:
    """Return True if the arm's layers are judged one by one on the validation rows."""
    return arm.intervention_from is None and arm.strategy in ("pruned", "validated")


# ------------------------------------------------ how strongly features are associated with success
#: A seed, or several numbers that together name a draw, such as a seed and a layer.
Seed = int | tuple[int, ...]

NEVER_FIRES = "never fires"
NO_SUCCESS = "no successful sample"
NO_FAILURE = "no failed sample"


@dataclass(frozen=True)
class Scores:
    """Scores of the features of one layer.

    Attributes:
        value: larger is better; NaN where undefined, infinite for a ratio to nothing.
        direction: +1 for success, −1 against, 0 neither.
        reason: why ``value`` is NaN; empty where it is not.
        result: the statistics behind it.
    """

    value: Float[np.ndarray, " f"]
    direction: Int[np.ndarray, " f"]
    reason: Shaped[np.ndarray, " f"]
    result: CorrelationResult


def pearson(part: "Accumulator", result: CorrelationResult, seed: Seed) -> Float[np.ndarray, " f"]:
    """|r| of the pooled activation with success (Cho et al. 2025, CorrSteer)."""
    return np.abs(result.correlation)


def mutual_information(
    part: "Accumulator", result: CorrelationResult, seed: Seed
) -> Float[np.ndarray, " f"]:
    """Mutual information with success, in nats (Zhao et al. 2024, SPARE).

    Raises:
        ValueError: if the statistics have no histogram.
    """
    if part.histogram is None:
        raise ValueError("no histogram was accumulated: there is no fallback for it.")
    return part.histogram.mutual_information()


def fisher(part: "Accumulator", result: CorrelationResult, seed: Seed) -> Float[np.ndarray, " f"]:
    """Mean square on successes over that on failures, or the inverse against success.

    It is the ratio of the empirical Fisher information (Muhamed et al. 2025, DSG).
    """
    up, down = result.mean_square_positive, result.mean_square_negative
    falling = result.mean_positive < result.mean_negative
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(falling, down / up, up / down)


def contrastive(
    part: "Accumulator", result: CorrelationResult, seed: Seed
) -> Float[np.ndarray, " f"]:
    """|mean on successes − mean on failures| (Panickssery et al. 2023, CAA)."""
    return np.abs(result.mean_positive - result.mean_negative)


def random(part: "Accumulator", result: CorrelationResult, seed: Seed) -> Float[np.ndarray, " f"]:
    """A random order of the features; the baseline of all scores."""
    return np.random.default_rng([*np.atleast_1d(seed), 5]).random(len(result.mean))


SCORES: dict[str, Callable[["Accumulator", CorrelationResult, Seed], Float[np.ndarray, " f"]]] = {
    "pearson": pearson,
    "mutual_information": mutual_information,
    "fisher": fisher,
    "contrastive": contrastive,
    "random": random,
}


def score(name: str, part: "Accumulator", seed: Seed = 0, *, min_outcomes: int = 1) -> Scores:
    """Return the scores ``name`` of one layer and statistic.

    Every score is undefined for a feature that never fires, and for all features if there are
    fewer than ``min_outcomes`` successful or failed samples.

    Args:
        name: key of :data:`SCORES`.
        part: sums over the training samples, for f features.
        seed: of the random order.
        min_outcomes: how many successes, and how many failures, are needed.

    Raises:
        KeyError: if there is no such score.
    """
    result = part.correlation.result()
    value = SCORES[name](part, result, seed).astype(np.float64)
    reason = np.where(np.isnan(value), result.reason, "").astype("<U160")
    silent = (result.active_positive + result.active_negative) == 0
    reason[silent] = NEVER_FIRES
    reason[(reason == "") & np.isnan(value)] = "undefined"
    if result.n_positive == 0:
        reason[:] = NO_SUCCESS
    elif result.n_positive == result.n:
        reason[:] = NO_FAILURE
    elif min(result.n_positive, result.n - result.n_positive) < min_outcomes:
        reason[:] = (
            f"{result.n_positive} successes and {result.n - result.n_positive} failures in "
            f"training, and selection needs {min_outcomes} of each (min_outcomes)"
        )
    value[reason != ""] = np.nan
    difference = np.nan_to_num(result.mean_positive - result.mean_negative)
    return Scores(value, np.sign(difference).astype(np.int64), reason, result)


def snapshot(accumulators: "Accumulators") -> pd.DataFrame:
    """Return the feature with the largest positive correlation so far, of each layer and statistic.

    Selection notes it after certain numbers of samples, to show how the choice converges.
    """
    rows = []
    for (layer, statistic), part in accumulators.parts.items():
        scores = score("pearson", part)
        value = np.where(scores.direction > 0, scores.value, np.nan)
        found = not np.isnan(value).all()
        best = int(np.nanargmax(value)) if found else None
        rows.append(
            (
                accumulators.n,
                scores.result.n_positive,
                layer,
                str(statistic),
                best,
                float(value[best]) if best is not None else None,
            )
        )
    columns = ["n", "n_success", "layer", "pooled_statistic", "feature", "correlation"]
    return pd.DataFrame(rows, columns=columns).astype({"feature": "Int64", "correlation": float})
