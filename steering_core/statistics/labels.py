"""Running moments of the label."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float


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
        constants: the one value of each class (label > 0.5, or not) seen, relative to the origin;
            None once a class has had two, or where that is not known.
    """

    n: int = 0
    n_positive: int = 0
    origin: float = 0.0
    mean: float = 0.0
    m2: float = 0.0
    constants: dict[bool, float] | None = field(default_factory=dict)

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
        self._note_constants(shifted, labels > 0.5)
        return shifted

    def merge(self, other: "LabelTotals") -> float:
        """Add what ``other`` has seen; returns its origin relative to this one's."""
        if self.n == 0:
            self.origin = other.origin
        self.constants = None
        shift = other.origin - self.origin
        self._combine(other.n, other.n_positive, other.mean + shift, other.m2)
        return shift

    def _note_constants(
        self, shifted: Float[np.ndarray, " n"], positive: Bool[np.ndarray, " n"]
    ) -> None:
        for half, members in ((False, shifted[~positive]), (True, shifted[positive])):
            if self.constants is None or members.size == 0:
                continue
            value = self.constants.setdefault(half, float(members[0]))
            if (members != value).any():
                self.constants = None

    def _combine(self, n: int, n_positive: int, mean: float, m2: float) -> None:
        total = self.n + n
        delta = mean - self.mean
        self.m2 += m2 + delta**2 * self.n * n / total
        self.mean += delta * n / total
        self.n, self.n_positive = total, self.n_positive + n_positive
