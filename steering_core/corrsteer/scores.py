"""Scores of features: how strongly each is associated with success.

Each score is a number per feature, larger is better, NaN where it is not defined. The direction of
a feature is the same for all scores: the sign of the difference of its means over successful and
failed samples, which is the sign of Pearson's r. To add a score, write a function and add it to
:data:`SCORES`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int, Shaped

from steering_core.corrsteer.accumulate import Accumulator, Accumulators
from steering_core.statistics.result import CorrelationResult

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


def pearson(part: Accumulator, result: CorrelationResult, seed: Seed) -> Float[np.ndarray, " f"]:
    """|r| of the pooled activation with success (Cho et al. 2025, CorrSteer)."""
    return np.abs(result.correlation)


def mutual_information(
    part: Accumulator, result: CorrelationResult, seed: Seed
) -> Float[np.ndarray, " f"]:
    """Mutual information with success, in nats (Zhao et al. 2024, SPARE).

    Raises:
        ValueError: if the statistics have no histogram.
    """
    if part.histogram is None:
        raise ValueError("no histogram was accumulated: there is no fallback for it.")
    return part.histogram.mutual_information()


def fisher(part: Accumulator, result: CorrelationResult, seed: Seed) -> Float[np.ndarray, " f"]:
    """Mean square on successes over that on failures, or the inverse against success.

    It is the ratio of the empirical Fisher information (Muhamed et al. 2025, DSG).
    """
    up, down = result.mean_square_positive, result.mean_square_negative
    falling = result.mean_positive < result.mean_negative
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(falling, down / up, up / down)


def contrastive(
    part: Accumulator, result: CorrelationResult, seed: Seed
) -> Float[np.ndarray, " f"]:
    """|mean on successes − mean on failures| (Panickssery et al. 2023, CAA)."""
    return np.abs(result.mean_positive - result.mean_negative)


def random(part: Accumulator, result: CorrelationResult, seed: Seed) -> Float[np.ndarray, " f"]:
    """A random order of the features; the baseline of all scores."""
    return np.random.default_rng([*np.atleast_1d(seed), 5]).random(len(result.mean))


SCORES: dict[str, Callable[[Accumulator, CorrelationResult, Seed], Float[np.ndarray, " f"]]] = {
    "pearson": pearson,
    "mutual_information": mutual_information,
    "fisher": fisher,
    "contrastive": contrastive,
    "random": random,
}


def score(name: str, part: Accumulator, seed: Seed = 0, *, min_outcomes: int = 1) -> Scores:
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


def snapshot(accumulators: Accumulators) -> pd.DataFrame:
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
