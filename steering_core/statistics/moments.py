"""Count, mean and co-moments of many groups of pairs (x, y), updated without cancellation.

Formulas: Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample
variances" (1979), with values taken relative to an *origin*, the first value a group has seen.
The origin makes a constant group have a second moment of exactly zero and keeps the digits of
small variations around a large mean.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Num

FIELDS = ("origin", "count", "mean", "m2", "label_mean", "co_moment")


@dataclass
class Moments:
    """Moments of ``g`` groups; every array is float64 of shape ``(g,)``.

    Attributes:
        origin: first x of the group; 0 for an empty group.
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
        """Mean of x; 0 for an empty group."""
        return self.origin + self.mean

    def stack(self) -> Float[np.ndarray, "6 g"]:
        """Return the six arrays in the order of :data:`FIELDS`."""
        return np.stack([getattr(self, name) for name in FIELDS])


def combine(left: Moments, right: Moments) -> Moments:
    """Moments of the union of two disjoint sets of pairs, group by group."""
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

    Since the sums are taken about the running mean, the subtraction below loses digits only for a
    group's first batch, and there by no more than a factor of the batch's size.

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
