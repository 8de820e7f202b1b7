"""Moments of each feature, and the statistics computed from them.

The moments are count, mean and co-moments of many groups of pairs (x, y), updated without
cancellation. Formulas: Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for
computing sample variances" (1979). Values are relative to an *origin*, the first value of a group.
With the origin, a constant group has a second moment of exactly zero, and small variations around a
large mean keep their digits.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Num, Shaped

NO_SAMPLES = "no samples"
CONSTANT_FEATURE = "constant feature"
CONSTANT_LABEL = "constant label"
OVERFLOW = "overflow"

FIELDS = ("origin", "count", "mean", "m2", "label_mean", "co_moment")


@dataclass
class Moments:
    """Moments of ``g`` groups; every array is float64 of shape ``(g,)``.

    Attributes:
        origin: first x of each group; 0 for an empty group.
        count: number of pairs.
        mean: mean of x minus ``origin``.
        m2: sum of squared deviations of x from its mean.
        label_mean: mean of y.
        co_moment: sum of products of the deviations of x and y from their means.
    """

    origin: Float[np.ndarray, " g"]
    count: Float[np.ndarray, " g"]
    mean: Float[np.ndarray, " g"]
    m2: Float[np.ndarray, " g"]
    label_mean: Float[np.ndarray, " g"]
    co_moment: Float[np.ndarray, " g"]

    @property
    def absolute_mean(self) -> Float[np.ndarray, " g"]:
        """Return the mean of x; 0 for an empty group."""
        return self.origin + self.mean

    def stack(self) -> Float[np.ndarray, "6 g"]:
        """Return the six arrays in the order of :data:`FIELDS`."""
        return np.stack([getattr(self, name) for name in FIELDS])


def combine(left: Moments, right: Moments) -> Moments:
    """Return the moments of the union of two disjoint sets of pairs, group by group."""
    count = left.count + right.count
    has_left, has_right = left.count > 0, right.count > 0
    origin = np.where(has_left, left.origin, right.origin)
    right_mean = right.mean + np.where(has_right, right.origin - origin, 0.0)
    left_mean = np.where(has_left, left.mean, right_mean)
    left_label = np.where(has_left, left.label_mean, right.label_mean)
    delta = np.where(has_right, right_mean - left_mean, 0.0)
    label_delta = np.where(has_right, right.label_mean - left_label, 0.0)
    share = right.count / np.maximum(count, 1.0)
    weight = left.count * share
    return Moments(
        origin=origin,
        count=count,
        mean=left_mean + delta * share,
        m2=left.m2 + right.m2 + delta**2 * weight,
        label_mean=left_label + label_delta * share,
        co_moment=left.co_moment + right.co_moment + delta * label_delta * weight,
    )


def add_sums(
    state: Moments,
    count: Num[np.ndarray, " g"],
    sum_x: Float[np.ndarray, " g"],
    sum_xx: Float[np.ndarray, " g"],
    label_sums: tuple[Float[np.ndarray, " g"], Float[np.ndarray, " g"]] | None,
) -> None:
    """Add pairs given by their sums *about the means in* ``state``, in place.

    Because the sums are about the running mean, the subtraction below loses digits only for a
    group's first batch, by at most a factor of the batch size.

    Args:
        state: arrays to change.
        count: number of pairs to add to each group.
        sum_x: sum of ``x - origin - mean``.
        sum_xx: sum of its square.
        label_sums: sum of ``y - label_mean`` and of its product with ``x - origin - mean``;
            None if every ``y`` equals its ``label_mean``.

    """
    state.count += count
    divisor = np.maximum(state.count, 1.0)
    share = sum_x / divisor
    state.mean += share
    if label_sums is not None:
        sum_y, sum_xy = label_sums
        state.label_mean += sum_y / divisor
        state.co_moment += sum_xy
        state.co_moment -= sum_y * share
    state.m2 += sum_xx
    state.m2 -= np.multiply(share, sum_x, out=share)
    np.maximum(state.m2, 0.0, out=state.m2)


@dataclass(frozen=True)
class CorrelationResult:
    """Statistics of each feature over ``n`` samples; arrays have shape ``(n_features,)``.

    A sample is *positive* if its label exceeds 0.5. Means, variances and squares are over all
    samples of the class, zeros included. An undefined quantity is NaN.

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
        """Return the share of samples on which the feature is not zero; NaN without samples."""
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
    """Add the zeros to the moments of the non-zero samples of both classes.

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
        # If no sample is zero, the two label means are equal up to rounding.
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
