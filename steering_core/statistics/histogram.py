"""Mutual information of every feature with success, from a histogram that is kept while streaming.

The bins are those of SPARE (Zhao et al. 2024, arXiv:2410.15999): four per decade from 1e-6 to 1.
Values nearer to zero share one bin, and values beyond 1 are in the last bin. For signed values the
bins are mirrored. Edges are in rising order. Most features are zero on most samples, so only
non-zero entries are counted; the zeros follow from the totals.
"""

from typing import Self

import numpy as np
from jaxtyping import Float, Int, Shaped

EDGES = 10.0 ** (np.arange(-24, 1) / 4.0)


class StreamingHistogram:
    """Counts of ``n_features`` features in log-spaced bins for either outcome; mergeable.

    Args:
        n_features: number of features.
        signed: whether values can be negative (raw activations).
    """

    def __init__(self, n_features: int, *, signed: bool = False):
        self.n_features = int(n_features)
        self.signed = signed
        self.edges = np.concatenate([-EDGES[::-1], EDGES]) if signed else EDGES
        self.zero_bin = int(np.digitize(0.0, self.edges))
        self.n = np.zeros(2, dtype=np.int64)
        self._counts = np.zeros((2, self.n_features, len(self.edges) + 1), dtype=np.int64)

    def update_sparse(
        self,
        row_indptr: Int[np.ndarray, " n_plus_1"],
        indices: Int[np.ndarray, " nnz"],
        values: Float[np.ndarray, " nnz"],
        labels: Shaped[np.ndarray, " n"],
    ) -> None:
        """Add samples given as rows of a CSR matrix; a label above 0.5 is a success.

        Raises:
            ValueError: if a value is not finite.
        """
        if not np.isfinite(values).all():
            raise ValueError("values contains NaN or infinity.")
        outcome = (np.asarray(labels) > 0.5).astype(np.intp)
        self.n += np.bincount(outcome, minlength=2)
        rows = np.repeat(outcome, np.diff(row_indptr))
        np.add.at(self._counts, (rows, indices, np.digitize(values, self.edges)), 1)

    def merge(self, other: "StreamingHistogram") -> None:
        """Add everything ``other`` has seen.

        Raises:
            ValueError: if the two differ in features or bins.
        """
        if (other.n_features, other.signed) != (self.n_features, self.signed):
            raise ValueError("other differs in features or bins.")
        self.n += other.n
        self._counts += other._counts

    def counts(self) -> Int[np.ndarray, "outcome f bin"]:
        """Return the complete histogram, zeros included."""
        complete = self._counts.copy()
        complete[:, :, self.zero_bin] += self.n[:, None] - complete.sum(axis=2)
        return complete

    def mutual_information(self) -> Float[np.ndarray, " f"]:
        """Return the plug-in estimate of I(feature; success) in nats; NaN for a single outcome."""
        if (self.n == 0).any():
            return np.full(self.n_features, np.nan)
        joint = self.counts() / self.n.sum()
        bins = joint.sum(axis=0, keepdims=True)
        outcome = (self.n / self.n.sum())[:, None, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            terms = joint * np.log(joint / (bins * outcome))
        return np.where(joint > 0, terms, 0.0).sum(axis=(0, 2)).clip(min=0.0)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return the state."""
        return {"n": self.n.copy(), "counts": self._counts.copy()}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> Self:
        """Rebuild from :meth:`to_arrays`.

        Raises:
            ValueError: if an array is missing or has the wrong shape or type.
        """
        counts = arrays["counts"]
        known = {len(EDGES) + 1: False, 2 * len(EDGES) + 1: True}
        if counts.ndim != 3 or counts.shape[2] not in known:
            raise ValueError(f"arrays: counts has shape {counts.shape}.")
        made = cls(counts.shape[1], signed=known[counts.shape[2]])
        made.n, made._counts = arrays["n"].copy(), counts.copy()
        return made
