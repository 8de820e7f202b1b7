"""A fixed buffer that gathers small sparse batches into large ones."""

import numpy as np
from jaxtyping import Float, Int


class EntryQueue:
    """Entries of sparse batches, copied into arrays that are allocated once.

    Folding entries into the statistics of all features costs a pass over the features and fresh
    memory a pass over page tables; neither should be paid for every batch of a few samples.

    Args:
        capacity: number of entries to hold; grows if a single batch is larger.
    """

    def __init__(self, capacity: int):
        self._allocate(capacity)
        self._size = 0
        self._lengths: list[Int[np.ndarray, " n"]] = []
        self._labels: list[Float[np.ndarray, " n"]] = []
        self.n = 0

    def has_room(self, entries: int, rows: int) -> bool:
        """Whether a batch of ``entries`` values in ``rows`` rows fits beside what is held."""
        held = max(self._size + entries, self.n + rows)
        return held <= self._values.size

    def push(
        self,
        lengths: Int[np.ndarray, " n"],
        columns: Int[np.ndarray, " nnz"],
        values: Float[np.ndarray, " nnz"],
        labels: Float[np.ndarray, " n"],
    ) -> None:
        """Copy a batch in; if it has no room, the queue must be empty, and grows."""
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
        """Row lengths, columns, values and labels of all batches, and room for as many numbers.

        The queue is empty afterwards. Columns, values and the room are views of the buffers, free
        to change until the next ``push``.
        """
        size = self._size
        lengths, labels = np.concatenate(self._lengths), np.concatenate(self._labels)
        self._size, self.n, self._lengths, self._labels = 0, 0, [], []
        return lengths, self._columns[:size], self._values[:size], labels, self._room[:size]

    def _allocate(self, capacity: int) -> None:
        self._columns = np.empty(capacity, dtype=np.intp)
        self._values = np.empty(capacity)
        self._room = np.empty(capacity)
