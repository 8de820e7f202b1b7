"""What the accumulated moments say about each feature."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped

from steering_core.statistics.moments import Moments, combine

NO_SAMPLES = "no samples"
CONSTANT_FEATURE = "constant feature"
CONSTANT_LABEL = "constant label"
OVERFLOW = "overflow"


@dataclass(frozen=True)
class CorrelationResult:
    """Statistics of each feature over ``n`` samples; arrays have shape ``(n_features,)``.

    A sample is *positive* when its label exceeds 0.5. Means, variances and squares are over all
    samples of the class, zeros included. A quantity that does not exist is NaN.

    Attributes:
        n: number of samples.
        n_positive: number of positive samples.
        mean: mean value.
        variance: population variance (``ddof=0``).
        correlation: Pearson correlation with the label, in [-1, 1].
        mean_positive: mean over positive samples.
        mean_negative: mean over the others.
        mean_square_positive: mean of the squared value over positive samples.
        mean_square_negative: mean of the squared value over the others.
        active_positive: number of positive samples on which the feature is not zero.
        active_negative: number of other samples on which it is not zero.
        reason: why ``correlation`` is NaN: "no samples", "constant feature", "constant label",
            "overflow" (a moment exceeds float64); empty where the correlation is defined.
    """

    n: int
    n_positive: int
    mean: Float[np.ndarray, " f"]
    variance: Float[np.ndarray, " f"]
    correlation: Float[np.ndarray, " f"]
    mean_positive: Float[np.ndarray, " f"]
    mean_negative: Float[np.ndarray, " f"]
    mean_square_positive: Float[np.ndarray, " f"]
    mean_square_negative: Float[np.ndarray, " f"]
    active_positive: Int[np.ndarray, " f"]
    active_negative: Int[np.ndarray, " f"]
    reason: Shaped[np.ndarray, " f"]

    @property
    def active_fraction(self) -> Float[np.ndarray, " f"]:
        """Share of samples on which the feature is not zero; NaN without samples."""
        return _divide(self.active_positive + self.active_negative, self.n)


def summarise(
    *,
    negative: Moments,
    positive: Moments,
    n: int,
    n_positive: int,
    label_mean: float,
    label_m2: float,
) -> CorrelationResult:
    """Complete the moments of the non-zero samples of both classes by the zeros.

    With k of n samples non-zero, mean m and label mean c among them, and label mean C overall,
    the zeros add m² k (n − k) / n to the second moment and m k (c − C) to the co-moment.

    Args:
        negative: moments of the non-zero values on samples whose label is at most 0.5.
        positive: the same on the other samples.
        n: number of samples, zeros included.
        n_positive: number of samples with label above 0.5.
        label_mean: mean label, relative to the same origin as ``label_mean`` in the moments.
        label_m2: sum of squared deviations of the label from its mean.
    """
    active = combine(negative, positive)
    level, count = active.absolute_mean, active.count
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        m2 = active.m2 + level**2 * count * ((n - count) / max(n, 1))
        # Where no sample is zero the two label means are the same number, up to rounding.
        label_excess = np.where(count == n, 0.0, active.label_mean - label_mean)
        co_moment = active.co_moment + level * count * label_excess
        correlation = np.clip(co_moment / np.sqrt(m2) / np.sqrt(label_m2), -1.0, 1.0)
    reason = np.full(count.shape, "", dtype=f"<U{len(CONSTANT_FEATURE)}")
    reason[~np.isfinite(correlation)] = OVERFLOW
    reason[m2 == 0] = CONSTANT_FEATURE
    if label_m2 == 0:
        reason[:] = CONSTANT_LABEL
    if n == 0:
        reason[:] = NO_SAMPLES
    correlation[reason != ""] = np.nan
    return CorrelationResult(
        n=n,
        n_positive=n_positive,
        mean=_divide(level * count, n),
        variance=_divide(m2, n),
        correlation=correlation,
        mean_positive=_divide(positive.absolute_mean * positive.count, n_positive),
        mean_negative=_divide(negative.absolute_mean * negative.count, n - n_positive),
        mean_square_positive=_mean_square(positive, n_positive),
        mean_square_negative=_mean_square(negative, n - n_positive),
        active_positive=positive.count.astype(np.int64),
        active_negative=negative.count.astype(np.int64),
        reason=reason,
    )


def _mean_square(active: Moments, n: int) -> Float[np.ndarray, " f"]:
    with np.errstate(over="ignore"):
        return _divide(active.m2 + active.absolute_mean**2 * active.count, n)


def _divide(values: Shaped[np.ndarray, " f"], n: int) -> Float[np.ndarray, " f"]:
    return values / n if n else np.full(values.shape, np.nan)
