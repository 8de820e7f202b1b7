"""Running moments of the label."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass
class LabelTotals:
    """Moments of all labels seen, of values relative to the first label.

    The origin keeps a constant label's second moment exactly zero.

    Attributes:
        n: number of labels.
        n_positive: number of labels above 0.5.
        origin: the first label.
        mean: mean label minus ``origin``.
        m2: sum of squared deviations from the mean.
    """

    n: int = 0
    n_positive: int = 0
    origin: float = 0.0
    mean: float = 0.0
    m2: float = 0.0

    def add(self, labels: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Add at least one label; returns the labels relative to the origin."""
        if self.n == 0:
            self.origin = float(labels[0])
        shifted = labels - self.origin
        mean = float(shifted.mean())
        self._combine(
            labels.size,
            int(np.count_nonzero(labels > 0.5)),
            mean,
            float(np.square(shifted - mean).sum()),
        )
        return shifted

    def merge(self, other: "LabelTotals") -> float:
        """Add what ``other`` has seen; returns its origin relative to this one's."""
        if self.n == 0:
            self.origin = other.origin
        shift = other.origin - self.origin
        self._combine(other.n, other.n_positive, other.mean + shift, other.m2)
        return shift

    def _combine(self, n: int, n_positive: int, mean: float, m2: float) -> None:
        total = self.n + n
        delta = mean - self.mean
        self.m2 += m2 + delta**2 * self.n * n / total
        self.mean += delta * n / total
        self.n, self.n_positive = total, self.n_positive + n_positive
