"""How many sequences at a time: as many as fit, and fewer when memory runs out."""

import gc
import logging
from collections.abc import Callable, Sequence

import torch

from steering_core.models.language_model import LanguageModel

log = logging.getLogger(__name__)

#: Keys and values of one batch. A constant and not a share of what is free, so that batches, and
#: with them the last digits of every sum, are the same on every machine.
CACHE_BYTES = 4 * 2**30

# What PyTorch says, besides OutOfMemoryError, when there is no memory left: CPU, MPS, cuBLAS.
_MESSAGES = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)


def cache_bytes(lm: LanguageModel, tokens: int) -> int:
    """Return the bytes of keys and values that a sequence of ``tokens`` needs in every layer."""
    config = lm.model.config.get_text_config()
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    shared = getattr(config, "num_key_value_heads", None) or heads
    return 2 * config.num_hidden_layers * shared * width * lm.dtype.itemsize * tokens


def largest_batch(lm: LanguageModel, tokens: int) -> int:
    """Return how many sequences of ``tokens`` have their keys and values in ``CACHE_BYTES``."""
    return max(1, CACHE_BYTES // cache_bytes(lm, tokens))


def in_batches(order: Sequence[int], batch_size: int, run: Callable[[list[int]], None]) -> int:
    """Call ``run`` with slice after slice of ``order``, halving the size when memory runs out.

    Args:
        order: what to slice.
        batch_size: size to begin with, >= 1.
        run: may be called again with the first part of a slice that did not fit.

    Returns:
        The size that fitted.

    Raises:
        RuntimeError: whatever ``run`` raised, if a single item does not fit, or for another cause.

    """
    start = 0
    while start < len(order):
        chosen = list(order[start : start + batch_size])
        if _fits(run, chosen):
            start += len(chosen)
            continue
        # Outside the handler: the traceback that held the tensors is gone.
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        batch_size = (len(chosen) + 1) // 2
        log.warning("out of memory with %d sequences: going on with %d", len(chosen), batch_size)
    return batch_size


def _fits(run: Callable[[list[int]], None], chosen: list[int]) -> bool:
    try:
        run(chosen)
    except RuntimeError as error:
        if len(chosen) == 1 or not is_out_of_memory(error):
            raise
        return False
    return True


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an error says that device or host memory is used up."""
    return isinstance(error, torch.OutOfMemoryError) or any(
        message in str(error) for message in _MESSAGES
    )
