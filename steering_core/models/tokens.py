"""Text to padded token ids with the mask that must go with them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Int
from transformers import PreTrainedTokenizerBase

from steering_core.errors import DataError, ModelError, clipped
from steering_core.models.devices import to_device
from steering_core.models.token_rows import TokenRows

#: Padded widths are multiples of the one, and numbers of rows of single tokens of the other.
#: With them the kernels of a CPU give a row the same digits whatever rows stand beside it, so
#: that results do not depend on the batch size; docs/reliability.md says where that was seen.
WIDTH_STEP = 16
ROW_STEP = 8

#: Texts that are tokenised at a time.
_BLOCK = 1024


@dataclass(frozen=True)
class TokenBatch:
    """Padded ids; ``mask`` is True on real tokens and ``bos`` on the BOS token of each row."""

    ids: Int[torch.Tensor, "batch seq"]
    mask: Bool[torch.Tensor, "batch seq"]
    bos: Bool[torch.Tensor, "batch seq"]

    def to(self, device: torch.device) -> "TokenBatch":
        """Move all three tensors."""
        return TokenBatch(*(to_device(part, device) for part in (self.ids, self.mask, self.bos)))


def tokenize(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    *,
    prepend_bos: bool,
    max_tokens: int | None = None,
) -> list[list[int]]:
    """Return the token ids of each text, with exactly one BOS in front if asked for.

    ``max_tokens`` (BOS included) cuts from the end; without it nothing is cut.

    Raises:
        ModelError: if BOS is asked for and the tokenizer has none.
        DataError: if a text has no token at all.

    """
    return list(_token_rows(tokenizer, texts, prepend_bos, max_tokens))


def tokenize_many(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    *,
    prepend_bos: bool,
    max_tokens: int | None = None,
) -> TokenRows:
    """Return what :func:`tokenize` does, in little memory."""
    return TokenRows(_token_rows(tokenizer, texts, prepend_bos, max_tokens))


def _token_rows(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    prepend_bos: bool,
    max_tokens: int | None,
) -> Iterator[list[int]]:
    if prepend_bos and tokenizer.bos_token_id is None:
        raise ModelError("the SAE wants BOS in front, and the tokenizer has no BOS token.")
    front = [tokenizer.bos_token_id] if prepend_bos else []
    for number, (text, ids) in enumerate(_encoded(tokenizer, texts), 1):
        if front and ids[:1] == front:  # a chat template writes its own
            ids = ids[1:]
        if not ids:
            raise DataError(f"text {number} of {len(texts)} has no tokens: {clipped(text)}")
        yield (front + ids)[:max_tokens]


def _encoded(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]
) -> Iterator[tuple[str, list[int]]]:
    """Yield each text with its tokens, no special ones among them but those that it holds."""
    for start in range(0, len(texts), _BLOCK):
        block = list(texts[start : start + _BLOCK])
        encoded = tokenizer(block, add_special_tokens=False, verbose=False)["input_ids"]
        yield from zip(block, encoded, strict=True)


def pad(
    rows: Sequence[Sequence[int]],
    tokenizer: PreTrainedTokenizerBase,
    *,
    side: Literal["left", "right"],
    prepend_bos: bool,
    context: int | None = None,
    width: int = 0,
) -> TokenBatch:
    """Pad token rows to one length, ``width`` at least. Left to generate, right for a single pass.

    With ``context``, the positions of the model, that length is :func:`padded_width`.
    """
    width = max(width, *map(len, rows))
    if context is not None:
        width = padded_width(width, context)
    ids = torch.full((len(rows), width), tokenizer.pad_token_id, dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.bool)
    bos = torch.zeros((len(rows), width), dtype=torch.bool)
    for i, row in enumerate(rows):
        start = width - len(row) if side == "left" else 0
        ids[i, start : start + len(row)] = torch.as_tensor(row, dtype=torch.long)
        mask[i, start : start + len(row)] = True
        bos[i, start] = prepend_bos or row[0] == tokenizer.bos_token_id
    return TokenBatch(ids, mask, bos)


def padded_width(length: int, context: int) -> int:
    """Return ``length`` rounded up to a multiple of ``WIDTH_STEP``, within ``context``."""
    return max(length, min(-(-length // WIDTH_STEP) * WIDTH_STEP, context))


def token_batches(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Group row indices so that rows × longest row stays within ``batch_tokens``.

    Rows are taken in order of length (ties by index), so padding is small and the grouping
    depends on nothing else. A row longer than the budget gets a batch of its own.
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    order = np.argsort(lengths, kind="stable")
    cuts = batch_cuts(lengths[order], batch_tokens)
    return [order[start:end].tolist() for start, end in pairwise(cuts)]


def batch_cuts(lengths: Int[np.ndarray, " n"], batch_tokens: int) -> list[int]:
    """Return where to cut rows that ascend in length: 0, the ends of the batches, and n.

    Each batch takes as many rows as :func:`token_batches` allows it.
    """
    cuts = [0]
    for i, length in enumerate(lengths):
        if i > cuts[-1] and (i + 1 - cuts[-1]) * length > batch_tokens:
            cuts.append(i)
    return [*cuts, len(lengths)] if len(lengths) else cuts


def padded_widths(lengths: Int[np.ndarray, " n"], context: int) -> Int[np.ndarray, " n"]:
    """Return :func:`padded_width` of each length."""
    return np.fromiter((padded_width(int(n), context) for n in lengths), np.int64, len(lengths))


def padded_batches(
    rows: Sequence[Sequence[int]],
    tokenizer: PreTrainedTokenizerBase,
    *,
    prepend_bos: bool,
    context: int,
    batch_tokens: int,
) -> Iterator[tuple[list[int], TokenBatch]]:
    """Yield :func:`token_batches` of the padded rows, and each padded on the right."""
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    for chosen in token_batches(padded_widths(lengths, context), batch_tokens):
        batch = [rows[i] for i in chosen]
        yield (
            chosen,
            pad(batch, tokenizer, side="right", prepend_bos=prepend_bos, context=context),
        )


def count_tokens(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], prepend_bos: bool
) -> list[int]:
    """Return the number of tokens of each text, BOS included; 0 for a text without any."""
    counts = []
    for _, ids in _encoded(tokenizer, texts):
        own_bos = prepend_bos and ids[:1] == [tokenizer.bos_token_id]
        length = len(ids) - own_bos
        counts.append(length + prepend_bos if length else 0)
    return counts
