"""Batches of sequences of similar length, as large as memory allows, smaller when it runs out."""

import gc
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
from transformers import Cache

from steering_core.models.devices import batch_dependent, free_cache
from steering_core.models.language_model import LanguageModel
from steering_core.models.tokens import ROW_STEP, padded_width

T = TypeVar("T")
log = logging.getLogger(__name__)

#: Keys and values of one batch. A constant and not a share of what is free, so that batches, and
#: with them the last digits of every sum, are the same on every machine.
CACHE_BYTES = 4 * 2**30
#: Lengths at which the cache of a sequence is measured; shorter than any window.
_MEASURED = (2, 3)

#: A group with so many rows takes in no narrower prompts: its batches are large enough.
GROUP_ROWS = 64
#: A pass over single tokens costs about as much as so many tokens of a prompt.
PASS_TOKENS = 64

# Messages of PyTorch about lack of memory besides OutOfMemoryError: CPU, MPS, cuBLAS.
_MESSAGES = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)
_DIGITS = f"with fewer than {ROW_STEP} the last digits of sums, and so a token, may differ"


def cache_bytes(lm: LanguageModel, tokens: int) -> int:
    """Return the bytes of the cache of one sequence of ``tokens``, as transformers builds it.

    Families and layers cache different things: compressed or shared keys and values, or states of a
    fixed size. So the size is measured at two lengths and extrapolated linearly. A sliding window,
    which would limit the growth, is not counted.
    """
    short, longer = (_measured_cache(lm, n) for n in _MEASURED)
    each = (longer - short) // (_MEASURED[1] - _MEASURED[0])
    return short + each * (tokens - _MEASURED[0])


@torch.no_grad()
def _measured_cache(lm: LanguageModel, tokens: int) -> int:
    """Return the bytes that the cache holds after a pass over ``tokens`` tokens."""
    ids = torch.ones((1, tokens), dtype=torch.long, device=lm.device)
    output = lm.model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=True)
    caches = [value for value in output.values() if isinstance(value, Cache)]
    return sum(_bytes_in(layer) for cache in caches for layer in cache.layers)


def _bytes_in(layer: object) -> int:
    """Return the bytes that a layer of a cache holds of its sequences, counters left out."""
    held: list[object] = []
    for value in vars(layer).values():
        held += value.values() if isinstance(value, dict) else [value]
    return sum(value.nbytes for value in held if isinstance(value, torch.Tensor) and value.ndim > 1)


def largest_batch(lm: LanguageModel, tokens: int) -> int:
    """Return how many sequences of ``tokens`` have their keys and values in ``CACHE_BYTES``."""
    return max(1, CACHE_BYTES // cache_bytes(lm, tokens))


def batches_for(lm: LanguageModel, wanted: int, tokens: int) -> "Batches":
    """Return batches of ``wanted`` sequences of ``tokens``, fewer where the cache would not fit.

    On a CPU the number of rows is a multiple of ``ROW_STEP`` (``wanted`` is rounded up), so that a
    row's digits do not depend on it; if fewer rows fit, that is impossible, and the log says so.
    """
    step = 1 if batch_dependent(lm.device) else ROW_STEP
    limit = largest_batch(lm, tokens)
    if limit < step:
        log.warning("only %d sequences of %d tokens at a time: %s", limit, tokens, _DIGITS)
        step = 1
    return Batches(min(_rounded_up(wanted, step), limit - limit % step), step)


class Batches:
    """Slices of a list, half as large each time memory runs out.

    Args:
        size: items at a time to begin with, a multiple of ``step``.
        step: slices are filled up to a multiple of it by repeating their last item, until so few
            fit that it has to be given up.
    """

    def __init__(self, size: int, step: int = 1):
        self.size, self.step = size, step

    def each(
        self, items: Sequence[int], run: Callable[[list[int]], T]
    ) -> Iterator[tuple[list[int], T]]:
        """Yield slice after slice of ``items`` with what ``run`` returned for it.

        Args:
            items: what to slice.
            run: called with a slice and its filling; again, with less, if that did not fit.

        Raises:
            RuntimeError: what ``run`` raised, if a single item does not fit, or for another cause.
        """
        start = 0
        while start < len(items):
            chosen = list(items[start : start + self.size])
            filled = chosen + chosen[-1:] * (-len(chosen) % self.step)
            done = _attempt(run, filled)
            if done is None:
                self._shrink(len(chosen), len(filled))
                continue
            yield chosen, done[0]
            start += len(chosen)

    def _shrink(self, n: int, filled: int) -> None:
        # Outside the handler: the traceback that held the tensors is gone.
        gc.collect()
        free_cache()
        lost = ""
        if filled > self.step:
            self.size = _rounded_up((filled + 1) // 2, self.step)
        else:
            self.size, self.step, lost = min(n, filled // 2), 1, f": {_DIGITS}"
        log.warning("out of memory with %d at a time: going on with %d%s", filled, self.size, lost)


def width_groups(
    lm: LanguageModel, lengths: Sequence[int], new_tokens: int
) -> list[tuple[int, list[int]]]:
    """Return groups of prompts to batch together: the width to pad them to, and which they are.

    On a CPU every prompt of a group is padded to the group's width, so the digits of attention do
    not depend on the batches. Prompts of a narrower width join a group of few rows if padding them
    costs less than passes of their own. On other devices digits depend on the batch anyway: there
    is one group, sorted by length, and a batch is as wide as its longest prompt (width 0).

    Args:
        lm: the model.
        lengths: tokens of each prompt.
        new_tokens: how many passes over single tokens follow.
    """
    if batch_dependent(lm.device):
        return [(0, sorted(range(len(lengths)), key=lambda i: (lengths[i], i)))]
    room = lm.shape.context - new_tokens
    widths: dict[int, list[int]] = {}
    for i, length in enumerate(lengths):
        widths.setdefault(padded_width(length, room), []).append(i)
    groups: list[tuple[int, list[int]]] = []
    for width, rows in sorted(widths.items(), reverse=True):
        passes = PASS_TOKENS * new_tokens + ROW_STEP // 2 * width  # half a step of filling
        if groups and len(groups[-1][1]) < GROUP_ROWS:
            wider, others = groups[-1]
            if len(rows) * (wider - width) <= passes:
                groups[-1] = wider, sorted(others + rows)
                continue
        groups.append((width, rows))
    return groups[::-1]


def _rounded_up(n: int, step: int) -> int:
    return -(-n // step) * step


def _attempt(run: Callable[[list[int]], T], chosen: list[int]) -> tuple[T] | None:
    """Return what ``run`` returned, or None if memory ran out and a smaller slice can be tried."""
    try:
        return (run(chosen),)
    except RuntimeError as error:
        if len(chosen) == 1 or not is_out_of_memory(error):
            raise
        return None


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an error says that device or host memory is used up."""
    return isinstance(error, torch.OutOfMemoryError) or any(
        message in str(error) for message in _MESSAGES
    )
