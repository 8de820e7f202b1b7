"""The cost at which a curve of effect against cost reaches a stated effect.

A curve has a few points, one per strength. It starts at the unsteered model, where cost and effect
are 0. The effect is made non-decreasing in the cost by isotonic regression, because a stronger push
in the same direction should not have less effect, and the points are too noisy to say so. Between
points it is linear in √KL, since the KL of a small step is quadratic in its length.

All functions take many samples of a curve at once: the estimate and its bootstrap resamples.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

#: An effect that is missed by less than this is reached: it differs by the rounding of its mean.
_ROUNDING = 1e-9


def isotonic(values: Float[np.ndarray, "points samples"]) -> Float[np.ndarray, "points samples"]:
    """Return the isotonic regression of each sample: least squares, non-decreasing over points.

    It is the min-max formula (Barlow et al. 1972, Statistical Inference under Order Restrictions),
    cubic in the few points and done for all samples at once. ``scipy.optimize.isotonic_regression``
    gives the same for one sample.
    """
    n = len(values)
    total = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0)])
    fitted = np.empty_like(values)
    for place in range(n):
        best = np.full(values.shape[1], -np.inf)
        for start in range(place + 1):
            means = [(total[end + 1] - total[start]) / (end + 1 - start) for end in range(place, n)]
            best = np.maximum(best, np.min(means, axis=0))
        fitted[place] = best
    return fitted


@dataclass(frozen=True)
class Place:
    """Where each sample of a curve reaches the effect: between two of its points.

    Attributes:
        cost: √KL there; infinite where the sample does not reach the effect.
        after: number, in order of cost, of the point at or after it; the unsteered point is 0.
        share: how far it is from the point before to this one, from 0 to 1.
    """

    cost: Float[np.ndarray, " samples"]
    after: Int[np.ndarray, " samples"]
    share: Float[np.ndarray, " samples"]

    @property
    def reached(self) -> Bool[np.ndarray, " samples"]:
        """Which samples reach the effect."""
        return np.isfinite(self.cost)


@dataclass(frozen=True)
class EffectCurve:
    """The samples of a curve, its points in order of cost, with the unsteered point first.

    Attributes:
        order: for each sample, the given points in order of cost, without the unsteered one.
        cost: √KL of each point, not decreasing.
        effect: fitted effect of each point, not decreasing, 0 at the first.
    """

    order: Int[np.ndarray, "points samples"]
    cost: Float[np.ndarray, "points_plus_1 samples"]
    effect: Float[np.ndarray, "points_plus_1 samples"]

    @classmethod
    def fit(
        cls, kl: Float[np.ndarray, "points samples"], effect: Float[np.ndarray, "points samples"]
    ) -> "EffectCurve":
        """Fit the curve.

        Args:
            kl: KL of each point in each sample, nats per token. Values below 0 are rounding
                errors and count as 0.
            effect: change of the measure against the unsteered model.

        Raises:
            ValueError: if the shapes differ, there is no point, or a number is not finite.
        """
        if kl.shape != effect.shape or kl.ndim != 2 or not len(kl):
            raise ValueError(
                f"kl {kl.shape} and effect {effect.shape} must have the same shape "
                "(points, samples) with at least one point."
            )
        if not (np.isfinite(kl).all() and np.isfinite(effect).all()):
            raise ValueError("kl and effect must be finite: leave out points without texts.")
        cost = np.sqrt(np.maximum(kl, 0.0))
        order = np.argsort(cost, axis=0, kind="stable")
        # With a lower bound, the isotonic regression is the free one, cut off at the bound.
        fitted = np.maximum(isotonic(np.take_along_axis(effect, order, axis=0)), 0.0)
        start = np.zeros((1, kl.shape[1]))
        cost = np.take_along_axis(cost, order, axis=0)
        return cls(order, np.concatenate([start, cost]), np.concatenate([start, fitted]))

    def reaches(self, effect: float) -> Place:
        """Return where each sample first reaches ``effect``, which must be above 0.

        A point that lacks only a rounding error of the effect reaches it.

        Raises:
            ValueError: if ``effect`` is not above 0.
        """
        if not effect > 0:
            raise ValueError(f"effect must be above 0, got {effect}.")
        there = self.effect >= effect - _ROUNDING
        reached = there.any(axis=0)
        after = np.where(reached, there.argmax(axis=0), 1)
        low, high = (_at(self.effect, place) for place in (after - 1, after))
        share = (effect - low) / np.where(reached, high - low, 1.0)
        share = np.where(high - effect <= _ROUNDING, 1.0, share)
        cost = _at(self.cost, after - 1) * (1 - share) + _at(self.cost, after) * share
        return Place(np.where(reached, cost, np.inf), after, np.where(reached, share, np.nan))

    def between(
        self,
        place: Place,
        values: Float[np.ndarray, "points samples"],
        start: Float[np.ndarray, " samples"] | None = None,
    ) -> Float[np.ndarray, " samples"]:
        """Return another quantity of the points at ``place``, linear between points; NaN elsewhere.

        Args:
            place: of :meth:`reaches`.
            values: the quantity at each point, in the order given to :meth:`fit`.
            start: the quantity at the unsteered point; None if it has none there, as the number of
                features of a vector of length 0. The first point's value then holds up to it.
        """
        ordered = np.take_along_axis(values, self.order, axis=0)
        before = ordered[:1] if start is None else start[None]
        every = np.concatenate([before, ordered])
        found = _at(every, place.after - 1) * (1 - place.share) + _at(every, place.after) * (
            place.share
        )
        return np.where(place.reached, found, np.nan)

    def effect_within(self, cost: Float[np.ndarray, " samples"]) -> Float[np.ndarray, " samples"]:
        """Return the largest effect of each sample at a √KL of at most ``cost``."""
        after = np.clip((self.cost <= cost).sum(axis=0), 1, len(self.cost) - 1)
        low, high = _at(self.cost, after - 1), _at(self.cost, after)
        wide = high > low
        share = np.where(wide, (np.minimum(cost, high) - low) / np.where(wide, high - low, 1), 1.0)
        return _at(self.effect, after - 1) * (1 - share) + _at(self.effect, after) * share


def _at(
    values: Float[np.ndarray, "points samples"], place: Int[np.ndarray, " samples"]
) -> Float[np.ndarray, " samples"]:
    return np.take_along_axis(values, place[None], axis=0)[0]


def open_interval(
    samples: Float[np.ndarray, " resamples"], confidence: float = 0.95, *, lowest: float = -np.inf
) -> tuple[float, float]:
    """Return the percentile interval of resamples that may be infinite; an infinite end is NaN.

    A resample that is NaN has an unknown value. It counts against both ends: as ``lowest`` at the
    lower one and as infinite at the upper one. Left out, the others would be a chosen sample of the
    resamples, and their interval too narrow. Without resamples both ends are NaN.

    The quantiles are those of :mod:`steering_core.statistics.bootstrap`, linear between resamples.
    Beside an infinite or a ``lowest`` resample, an end is the resample on the outer side, since one
    cannot interpolate to what is not a number of the curve.

    Args:
        samples: one number per resample.
        confidence: level, between 0 and 1.
        lowest: the least value that a resample can have; 0 for a ratio.
    """
    if not samples.size:
        return np.nan, np.nan
    tail, unknown = (1 - confidence) / 2, np.isnan(samples)
    low = _end(np.where(unknown, lowest, samples), tail, "lower", lowest)
    high = _end(np.where(unknown, np.inf, samples), 1 - tail, "higher", lowest)
    return tuple(float(end) if np.isfinite(end) else np.nan for end in (low, high))


def _end(
    samples: Float[np.ndarray, " resamples"],
    share: float,
    outer: Literal["lower", "higher"],
    lowest: float,
) -> float:
    near = [np.quantile(samples, share, method=side) for side in ("lower", "higher")]
    if np.isfinite(near).all() and lowest not in near:
        return np.quantile(samples, share)
    return near[outer == "higher"]


def paired_ratio(
    mine: Float[np.ndarray, " samples"], theirs: Float[np.ndarray, " samples"]
) -> Float[np.ndarray, " samples"]:
    """Return ``mine / theirs`` of costs that may be infinite; NaN where both are, or both are 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return mine / theirs
