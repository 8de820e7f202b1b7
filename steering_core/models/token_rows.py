"""Token ids of many texts in little memory."""

from array import array
from collections.abc import Iterable, Sequence
from typing import overload

import numpy as np
from jaxtyping import Int


class TokenRows(Sequence[Int[np.ndarray, " length"]]):
    """Token ids of many texts in one array: 4 bytes a token and 8 a text.

    Lists of Python's numbers take ten times as much.
    """

    def __init__(self, rows: Iterable[Sequence[int]]):
        ids, ends = array("i"), array("q", [0])
        for row in rows:
            ids.extend(row)
            ends.append(len(ids))
        self._ids, self._ends = np.frombuffer(ids, np.intc), np.frombuffer(ends, np.int64)

    @property
    def lengths(self) -> Int[np.ndarray, " n"]:
        """Tokens of each text."""
        return np.diff(self._ends)

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> Int[np.ndarray, " length"]: ...
    @overload
    def __getitem__(self, index: slice) -> list[Int[np.ndarray, " length"]]: ...
    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        i = range(len(self))[index]
        return self._ids[self._ends[i] : self._ends[i + 1]]
