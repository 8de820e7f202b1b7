"""Pool over the positions of a sample, and accumulate over samples.

Pooling takes positions in chunks, and accumulation takes samples in batches, so memory does not
grow with their number.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped

from steering_core.corrsteer.scores import PooledStatistic
from steering_core.statistics.correlation import StreamingCorrelation

if TYPE_CHECKING:
    from steering_core.corrsteer.capture import Captured


class Pool:
    """Running maximum and sum over each row's positions, as far as the poolings need them.

    Args:
        rows: number of samples.
        poolings: ``max``, ``mean`` or both.
    """

    def __init__(self, rows: int, poolings: set[str]):
        self.rows = rows
        self.poolings = poolings
        self.count: Int[torch.Tensor, " rows"] | int = 0
        self._max: torch.Tensor | None = None
        self._sum: torch.Tensor | None = None

    def add(
        self, values: Float[torch.Tensor, "positions f"], lengths: Int[torch.Tensor, " rows"]
    ) -> None:
        """Add the first ``lengths[0]`` positions to row 0, the next ``lengths[1]`` to row 1, …"""
        self.count = self.count + lengths
        if "max" in self.poolings:
            top = _reduce(values, lengths, "max", -torch.inf)
            self._max = top if self._max is None else torch.maximum(self._max, top)
        if "mean" in self.poolings:
            total = _reduce(values.float(), lengths, "sum", 0.0)
            self._sum = total if self._sum is None else self._sum + total

    def top(self) -> Float[torch.Tensor, "rows f"]:
        """Return the maximum; minus infinity for a row without positions.

        Raises:
            ValueError: if no maximum was asked for.
        """
        if self._max is None:
            raise ValueError("no maximum was kept.")
        return self._max

    def total(self) -> Float[torch.Tensor, "rows f"]:
        """Return the sum; 0 for a row without positions.

        Raises:
            ValueError: if no mean was asked for.
        """
        if self._sum is None:
            raise ValueError("no sum was kept.")
        return self._sum

    def result(self, pooling: str) -> Float[torch.Tensor, "rows f"]:
        """Return the pooled values.

        Raises:
            ValueError: if a row has no position, or this pooling was not given at the start.
        """
        if isinstance(self.count, int) or not bool((self.count > 0).all()):
            raise ValueError("a sample has no position to pool over.")
        return self.top() if pooling == "max" else self.total() / self.count[:, None]


def _reduce(
    values: Float[torch.Tensor, "positions f"],
    lengths: Int[torch.Tensor, " rows"],
    how: str,
    empty: float,
) -> Float[torch.Tensor, "rows f"]:
    return torch.segment_reduce(values, how, lengths=lengths, axis=0, unsafe=True, initial=empty)


#: A layer and a statistic.
Key = tuple[int, PooledStatistic]


class Accumulator:
    """Correlation moments of one layer and statistic, and a histogram for mutual information."""

    def __init__(self, n_features: int, statistic: PooledStatistic, *, histogram: bool):
        self.statistic = statistic
        self.correlation = StreamingCorrelation(n_features)
        self.histogram = (
            StreamingHistogram(n_features, signed=statistic.space == "raw") if histogram else None
        )

    def update(self, values: Float[torch.Tensor, "n f"], success: Bool[np.ndarray, " n"]) -> None:
        """Add samples: features in sparse form, raw dimensions in dense form."""
        labels = success.astype(np.float64)
        if self.statistic.space == "features" or self.histogram is not None:
            csr = to_csr(values)
        if self.statistic.space == "features":
            self.correlation.update_sparse(*csr, labels)
        else:
            self.correlation.update_dense(values.cpu().double().numpy(), labels)
        if self.histogram is not None:
            self.histogram.update_sparse(*csr, labels)

    def merge(self, other: "Accumulator") -> None:
        """Add everything ``other`` has seen."""
        self.correlation.merge(other.correlation)
        if self.histogram is not None and other.histogram is not None:
            self.histogram.merge(other.histogram)


class Accumulators:
    """An :class:`Accumulator` for every layer and statistic; memory does not grow with samples.

    Args:
        sizes: number of features of every layer and statistic.
        histograms: statistics that need a histogram, for mutual information.
    """

    def __init__(self, sizes: Mapping[Key, int], histograms: Iterable[PooledStatistic] = ()):
        wanted = set(histograms)
        self.parts = {
            (layer, statistic): Accumulator(size, statistic, histogram=statistic in wanted)
            for (layer, statistic), size in sorted(sizes.items())
        }
        self.n = 0

    @property
    def layers(self) -> list[int]:
        """Layers, in order."""
        return sorted({layer for layer, _ in self.parts})

    def update(self, captured: "Captured", success: Bool[np.ndarray, " n"]) -> None:
        """Add a batch; rows of ``captured`` beyond those of ``success`` are filling."""
        for (layer, statistic), part in self.parts.items():
            part.update(captured.values(layer, statistic)[: len(success)], success)
        self.n += len(success)

    def merge(self, other: "Accumulators") -> None:
        """Add what another shard has seen.

        Raises:
            ValueError: if it accumulated something else.
        """
        if other.parts.keys() != self.parts.keys():
            raise ValueError("the shards accumulated different layers or statistics.")
        for key, part in self.parts.items():
            part.merge(other.parts[key])
        self.n += other.n

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return the whole state for :func:`steering_core.storage.arrays.save_arrays`."""
        arrays = {"n": np.array([self.n])}
        for (layer, statistic), part in self.parts.items():
            name = f"{layer}.{statistic}"
            for field, array in part.correlation.to_arrays().items():
                arrays[f"{name}.correlation.{field}"] = array
            if part.histogram is not None:
                for field, array in part.histogram.to_arrays().items():
                    arrays[f"{name}.histogram.{field}"] = array
        return arrays

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> Self:
        """Rebuild from :meth:`to_arrays`."""
        grouped: dict[tuple[str, str], dict[str, dict[str, np.ndarray]]] = {}
        for name, array in arrays.items():
            if name != "n":
                layer, statistic, kind, field = name.split(".")
                grouped.setdefault((layer, statistic), {}).setdefault(kind, {})[field] = array
        made = cls({})
        for (layer, name), kinds in grouped.items():
            statistic = PooledStatistic.parse(name)
            part = Accumulator(1, statistic, histogram=False)
            part.correlation = StreamingCorrelation.from_arrays(kinds["correlation"])
            if "histogram" in kinds:
                part.histogram = StreamingHistogram.from_arrays(kinds["histogram"])
            made.parts[int(layer), statistic] = part
        made.parts = dict(sorted(made.parts.items()))
        made.n = int(arrays["n"][0])
        return made


def to_csr(values: Float[torch.Tensor, "n f"]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return ``(row_indptr, indices, values)`` of the nonzeros; only these leave the device."""
    if values.device.type == "cpu":  # five times as fast as torch is there
        dense = values.numpy()
        rows, columns = np.divmod(np.flatnonzero(dense != 0), dense.shape[1])
        numbers = dense[rows, columns]
    else:
        where = values.nonzero()
        numbers = values[where[:, 0], where[:, 1]].cpu().numpy()
        rows, columns = where.cpu().numpy().T
    counts = np.bincount(rows, minlength=len(values))
    return np.concatenate([[0], np.cumsum(counts)]), columns, numbers


#: Edges of the histogram's bins.
EDGES = 10.0 ** (np.arange(-24, 1) / 4.0)


class StreamingHistogram:
    """Counts of ``n_features`` features in log-spaced bins for either outcome; mergeable.

    The mutual information of every feature with success follows from them. The bins are those of
    SPARE (Zhao et al. 2024, arXiv:2410.15999): four per decade from 1e-6 to 1. Values nearer to
    zero share one bin, and values beyond 1 are in the last bin. For signed values the bins are
    mirrored. Edges are in rising order. Most features are zero on most samples, so only non-zero
    entries are counted; the zeros follow from the totals.

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
