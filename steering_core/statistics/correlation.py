"""Pearson correlation of every feature with a label, in memory that does not grow with samples.

Most SAE features are zero on most samples. Only the non-zero samples of a feature are accumulated,
separately for the two classes (label > 0.5 and the rest). The zeros are added in closed form when
the result is read. So the cost of an update is proportional to its number of non-zero values.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int, Shaped

from steering_core.errors import DataError
from steering_core.statistics.moments import (
    FIELDS,
    CorrelationResult,
    Moments,
    add_sums,
    combine,
    summarise,
)

_BLOCK = 8192  # groups at a time, so that temporary arrays stay in the CPU cache
_INDEX, _UNSIGNED = np.dtype(np.intp), np.dtype(np.uintp)


class StreamingCorrelation:
    """Correlation of ``n_features`` features with a label, one pass, mergeable.

    The state has six float64 numbers for each feature and class. Buffers for small batches and sums
    take less than three times as much, for any number of samples. The result agrees with
    ``numpy.corrcoef`` on the dense float64 data to 1e-10, even with a large common offset.

    Args:
        n_features: number of features, at least 1.

    Raises:
        ValueError: if ``n_features`` is not positive.
    """

    def __init__(self, n_features: int):
        if n_features < 1:
            raise ValueError(f"n_features must be at least 1, got {n_features}.")
        self.n_features = int(n_features)
        self._labels = _LabelTotals()
        # Groups: features of the negative class, then features of the positive class.
        self._state = np.zeros((len(FIELDS), 2 * self.n_features))
        # Allocating memory costs more than the arithmetic on it, so large arrays are kept.
        self._sums = np.zeros((5, 2 * self.n_features))
        # Folding costs a pass over all groups, so wait for four times as many entries.
        self._queue = _EntryQueue(8 * self.n_features)

    @property
    def n(self) -> int:
        """Number of samples seen."""
        return self._labels.n + self._queue.n

    def update_sparse(
        self,
        row_indptr: Int[np.ndarray, " n_plus_1"],
        indices: Int[np.ndarray, " nnz"],
        values: Float[np.ndarray, " nnz"],
        labels: Shaped[np.ndarray, " n"],
    ) -> None:
        """Add ``n`` samples given as the rows of a CSR matrix ``(n, n_features)``.

        Args:
            row_indptr: row ``i`` holds entries ``row_indptr[i]`` to ``row_indptr[i + 1]``.
            indices: feature of each entry, in any order; a feature occurs at most once per row.
            values: value of each entry, of either sign; explicit zeros count as inactive.
            labels: one number or boolean per sample.

        Raises:
            ValueError: if an argument is not finite, of wrong shape or out of range.
        """
        labels = _check_labels(labels)
        lengths, indices, values = _check_csr(
            row_indptr, indices, values, n=labels.size, n_features=self.n_features
        )
        if not self._queue.has_room(indices.size, labels.size):
            self._fold()
        self._queue.push(lengths, indices, values, labels)

    def update_dense(
        self, values: Float[np.ndarray, "n n_features"], labels: Shaped[np.ndarray, " n"]
    ) -> None:
        """Add ``n`` samples given as a dense array; the same result as :meth:`update_sparse`.

        Use it for raw activations. It needs working memory of a few times ``values``.

        Raises:
            ValueError: if an argument is not finite or of wrong shape.
        """
        labels = _check_labels(labels)
        values = _check_matrix(values, n=labels.size, n_features=self.n_features)
        if labels.size == 0:
            return
        self._fold()
        positive = labels > 0.5
        shifted = self._labels.add(labels)
        for half, rows in enumerate((~positive, positive)):
            if rows.any():
                part = slice(half * self.n_features, (half + 1) * self.n_features)
                self._add_block(part, values[rows], shifted[rows])

    def merge(self, other: "StreamingCorrelation") -> None:
        """Add all samples of ``other``, which does not change.

        Raises:
            ValueError: if the two have different numbers of features.
        """
        if other.n_features != self.n_features:
            raise ValueError(
                f"other has {other.n_features} features, this accumulator {self.n_features}."
            )
        self._fold()
        other._fold()
        if other.n == 0:
            return
        theirs = other._state.copy()
        theirs[FIELDS.index("label_mean")] += self._labels.merge(other._labels)
        self._state = combine(Moments(*self._state), Moments(*theirs)).stack()

    def result(self) -> CorrelationResult:
        """Return the statistics of all samples so far; more samples can be added afterwards."""
        self._fold()
        half = self.n_features
        labels = self._labels
        return summarise(
            negative=Moments(*self._state[:, :half]),
            positive=Moments(*self._state[:, half:]),
            n=labels.n,
            n_positive=labels.n_positive,
            label_mean=labels.mean,
            label_m2=labels.m2,
        )

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return the whole state as arrays for :func:`steering_core.storage.arrays.save_arrays`."""
        self._fold()
        labels = self._labels
        return {
            "totals": np.array([self.n_features, labels.n, labels.n_positive], dtype=np.int64),
            "labels": np.array([labels.origin, labels.mean, labels.m2]),
            "state": self._state.copy(),
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> Self:
        """Rebuild the accumulator from the result of its :meth:`to_arrays`.

        Raises:
            ValueError: if an array is missing or of wrong shape.
        """
        missing = {"totals", "labels", "state"} - arrays.keys()
        if missing:
            raise ValueError(f"arrays lacks {sorted(missing)}: not a StreamingCorrelation.")
        totals, labels, state = arrays["totals"], arrays["labels"], arrays["state"]
        if totals.shape != (3,) or labels.shape != (3,):
            raise ValueError(f"arrays: totals {totals.shape} and labels {labels.shape}, not (3,).")
        made = cls(int(totals[0]))
        if state.shape != made._state.shape:
            raise ValueError(f"arrays: state has shape {state.shape}, not {made._state.shape}.")
        made._labels = _LabelTotals(
            int(totals[1]), int(totals[2]), *map(float, labels), constants=None
        )
        made._state = np.array(state, dtype=np.float64)
        return made

    def _fold(self) -> None:
        """Move the queued batches into the state."""
        if self._queue.n == 0:
            return
        lengths, groups, x, labels, room = self._queue.drain()
        shifted = self._labels.add(labels)
        offset = np.repeat(labels > 0.5, lengths)
        groups += np.multiply(offset, self.n_features, out=room.view(np.intp))
        constants = self._labels.constants
        # With 0/1 labels every deviation within a class is zero, so there is nothing to sum.
        y = np.repeat(shifted, lengths) if constants is None else None
        if x.size and np.minimum.reduce(x) <= 0:
            active = x != 0
            groups, x = groups[active], x[active]
            y = None if y is None else y[active]
            room = room[: x.size]

        counts, *sums = self._sums
        self._sums[:] = 0.0
        np.add.at(counts, groups, 1.0)
        state = Moments(*self._state)
        fresh = (state.count == 0) & (counts > 0)
        if fresh.any():
            # Some value of each new group becomes its origin: the one that is written last.
            first = fresh[groups]
            state.origin[groups[first]] = x[first]
            if y is not None:
                state.label_mean[groups[first]] = y[first]
            else:
                for positive, value in constants.items():
                    half = slice(positive * self.n_features, (positive + 1) * self.n_features)
                    state.label_mean[half][fresh[half]] = value
        x -= state.origin.take(groups, out=room, mode="clip")
        x -= state.mean.take(groups, out=room, mode="clip")
        np.add.at(sums[0], groups, x)
        np.add.at(sums[1], groups, np.square(x, out=room))
        if y is not None:
            y -= state.label_mean.take(groups, out=room, mode="clip")
            np.add.at(sums[2], groups, y)
            np.add.at(sums[3], groups, np.multiply(x, y, out=y))
        for start in range(0, counts.size, _BLOCK):
            part = slice(start, start + _BLOCK)
            sum_x, sum_xx, sum_y, sum_xy = self._sums[1:, part]
            label_sums = None if y is None else (sum_y, sum_xy)
            add_sums(Moments(*self._state[:, part]), counts[part], sum_x, sum_xx, label_sums)

    def _add_block(
        self, part: slice, values: Float[np.ndarray, "n f"], labels: Float[np.ndarray, " n"]
    ) -> None:
        active = values != 0
        state = Moments(*self._state[:, part])
        fresh = (state.count == 0) & active.any(axis=0)
        first = active.argmax(axis=0)[fresh]
        state.origin[fresh] = values[first, np.flatnonzero(fresh)]
        state.label_mean[fresh] = labels[first]
        x = np.where(active, values - state.origin - state.mean, 0.0)
        y = np.where(active, labels[:, None] - state.label_mean, 0.0)
        add_sums(
            state,
            active.sum(axis=0),
            x.sum(axis=0),
            np.square(x).sum(axis=0),
            (y.sum(axis=0), (x * y).sum(axis=0)),
        )


def correlate(
    batches: Iterable[tuple[list[str], sp.csr_matrix]], labels: Mapping[str, float]
) -> StreamingCorrelation:
    """Accumulate the rows of ``batches`` that have a label, in one pass with one batch in memory.

    Args:
        batches: pairs of example ids and features (n, d_sae), from the feature reader.
        labels: labels by example id. Examples without a label are ignored.

    Raises:
        DataError: if a labelled example does not occur in the stream exactly once.
    """
    accumulator: StreamingCorrelation | None = None
    waiting = set(labels)
    for names, features in batches:
        if accumulator is None:
            accumulator = StreamingCorrelation(features.shape[1])
        rows = [i for i, name in enumerate(names) if name in labels]
        if rows:
            found = {names[i] for i in rows}
            if len(found) < len(rows) or not found <= waiting:
                raise DataError("an example has features twice: delete them and run again.")
            waiting -= found
            chosen = features[rows]
            accumulator.update_sparse(
                chosen.indptr,
                chosen.indices,
                chosen.data,
                np.array([labels[names[i]] for i in rows], dtype=np.float64),
            )
    if accumulator is None or waiting:
        raise DataError(
            f"{len(labels)} labelled examples, {len(labels) - len(waiting)} of them have features."
        )
    return accumulator


@dataclass
class _LabelTotals:
    """Moments of all labels so far, relative to the first label.

    With this origin the second moment of constant labels is exactly zero.

    Attributes:
        n: number of labels.
        n_positive: number of labels above 0.5.
        origin: the first label.
        mean: mean label minus ``origin``.
        m2: sum of squared deviations from the mean.
        constants: the single value of the labels of each class (label > 0.5, or not), relative to
            the origin; None if a class has two values, or if that is unknown.
    """

    n: int = 0
    n_positive: int = 0
    origin: float = 0.0
    mean: float = 0.0
    m2: float = 0.0
    constants: dict[bool, float] | None = field(default_factory=dict)

    def add(self, labels: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Add at least one label, and return the labels relative to the origin."""
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

    def merge(self, other: "_LabelTotals") -> float:
        """Add the labels of ``other``, and return its origin relative to this one's."""
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


class _EntryQueue:
    """Entries of sparse batches, copied into arrays that are allocated once.

    Folding entries into the statistics costs a pass over all features, and allocating memory costs
    a pass over page tables. The queue avoids both costs for every batch of a few samples.

    Args:
        capacity: number of entries to hold. It grows if a single batch is larger.
    """

    def __init__(self, capacity: int):
        self._allocate(capacity)
        self._size = 0
        self._lengths: list[Int[np.ndarray, " n"]] = []
        self._labels: list[Float[np.ndarray, " n"]] = []
        self.n = 0

    def has_room(self, entries: int, rows: int) -> bool:
        """Return whether a batch of ``entries`` values in ``rows`` rows fits into the queue."""
        held = max(self._size + entries, self.n + rows)
        return held <= self._values.size

    def push(
        self,
        lengths: Int[np.ndarray, " n"],
        columns: Int[np.ndarray, " nnz"],
        values: Float[np.ndarray, " nnz"],
        labels: Float[np.ndarray, " n"],
    ) -> None:
        """Copy a batch into the queue. If it does not fit, the queue must be empty and grows."""
        if columns.size > self._values.size:
            self._allocate(columns.size)
        stop = self._size + columns.size
        self._columns[self._size : stop] = columns
        self._values[self._size : stop] = values
        self._size = stop
        self._lengths.append(lengths)
        self._labels.append(labels.copy())
        self.n += labels.size

    def drain(
        self,
    ) -> tuple[
        Int[np.ndarray, " n"],
        Int[np.ndarray, " nnz"],
        Float[np.ndarray, " nnz"],
        Float[np.ndarray, " n"],
        Float[np.ndarray, " nnz"],
    ]:
        """Return row lengths, columns, values and labels of all batches, and a scratch array.

        The scratch array has room for one number per value. The queue is empty afterwards. Columns,
        values and scratch array are views of the buffers; the caller may change them until the next
        ``push``.
        """
        size = self._size
        lengths, labels = np.concatenate(self._lengths), np.concatenate(self._labels)
        self._size, self.n, self._lengths, self._labels = 0, 0, [], []
        return lengths, self._columns[:size], self._values[:size], labels, self._room[:size]

    def _allocate(self, capacity: int) -> None:
        self._columns = np.empty(capacity, dtype=np.intp)
        self._values = np.empty(capacity)
        self._room = np.empty(capacity)


def _check_labels(labels: Shaped[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Return ``labels`` as finite float64 of one dimension.

    Raises:
        ValueError: if they are not.
    """
    labels = np.asarray(labels, dtype=np.float64)
    if labels.ndim != 1:
        raise ValueError(f"labels must have one dimension, got shape {labels.shape}.")
    if not _all_finite(labels):
        raise ValueError("labels contains NaN or infinity.")
    return labels


def _check_matrix(
    values: Shaped[np.ndarray, "n f"], *, n: int, n_features: int
) -> Float[np.ndarray, "n f"]:
    """Return ``values`` as finite float64 of shape ``(n, n_features)``.

    Raises:
        ValueError: if they are not.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.shape != (n, n_features):
        raise ValueError(
            f"values must have shape {(n, n_features)} (labels, n_features), got {values.shape}."
        )
    if not _all_finite(values):
        raise ValueError("values contains NaN or infinity.")
    return values


def _check_csr(
    row_indptr: Int[np.ndarray, " n_plus_1"],
    indices: Int[np.ndarray, " nnz"],
    values: Shaped[np.ndarray, " nnz"],
    *,
    n: int,
    n_features: int,
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " nnz"], Float[np.ndarray, " nnz"]]:
    """Return row lengths, column indices and floating values of a CSR matrix ``(n, n_features)``.

    Raises:
        ValueError: if the arrays do not form such a matrix, a value is not finite, or a row names
            a feature twice.
    """
    row_indptr = _integers(row_indptr, "row_indptr")
    indices = _integers(indices, "indices")
    values = np.asarray(values)
    if values.dtype.kind != "f":
        values = values.astype(np.float64)
    if row_indptr.shape != (n + 1,):
        raise ValueError(
            f"row_indptr must have shape {(n + 1,)} for {n} labels, got {row_indptr.shape}."
        )
    if values.shape != indices.shape:
        raise ValueError(
            f"values and indices must be of equal length, got {values.shape} and {indices.shape}."
        )
    lengths = row_indptr[1:] - row_indptr[:-1]
    falls = np.count_nonzero(lengths < 0)
    if falls or row_indptr[0] != 0 or row_indptr[-1] != indices.size:
        raise ValueError(f"row_indptr must rise from 0 to the number of values, {indices.size}.")
    if not _all_finite(values):
        raise ValueError("values contains NaN or infinity.")
    if indices.size:
        unsigned = indices.view(_UNSIGNED)  # a negative number becomes a large one
        if unsigned[unsigned.argmax()] >= n_features:
            raise ValueError(f"indices must lie in [0, {n_features}).")
        _check_distinct(row_indptr, indices, n_features)
    return lengths, indices, values


def _all_finite(values: Float[np.ndarray, "..."]) -> bool:
    # The sum of squares is finite unless a value is not finite or, rarely, the sum overflows.
    flat = values.reshape(-1)
    return math.isfinite(flat.dot(flat)) or bool(np.isfinite(flat).all())


def _integers(array: Shaped[np.ndarray, " n"], name: str) -> Int[np.ndarray, " n"]:
    array = np.asarray(array)
    if array.ndim != 1:
        raise ValueError(f"{name} must have one dimension, got shape {array.shape}.")
    if array.dtype == _INDEX:
        return array
    if array.size and array.dtype.kind not in "iu":
        raise ValueError(f"{name} must hold integers, got {array.dtype}.")
    return array.astype(np.intp)


def _check_distinct(
    row_indptr: Int[np.ndarray, " n_plus_1"], indices: Int[np.ndarray, " nnz"], n_features: int
) -> None:
    rising = np.empty(indices.size + 1, dtype=bool)
    np.greater(indices[1:], indices[:-1], out=rising[1:-1])
    rising[row_indptr] = True
    if np.count_nonzero(rising) == rising.size:
        return
    rows = np.repeat(np.arange(row_indptr.size - 1), np.diff(row_indptr))
    cells = np.sort(rows * n_features + indices)
    if (cells[1:] == cells[:-1]).any():
        raise ValueError("indices names a feature twice in one row.")
