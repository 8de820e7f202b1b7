"""Text to padded token ids with the mask that must go with them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Int
from transformers import PreTrainedTokenizerBase

from steering_core.errors import DataError, ModelError, clipped
from steering_core.models.devices import to_device

#: Padded widths are multiples of the one, and numbers of rows of single tokens of the other.
#: With them the kernels of a CPU give a row the same digits whatever rows stand beside it, so
#: that results do not depend on the batch size; docs/reliability.md says where that was seen.
WIDTH_STEP = 16
ROW_STEP = 8


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
    if prepend_bos and tokenizer.bos_token_id is None:
        raise ModelError("the SAE wants BOS in front, and the tokenizer has no BOS token.")
    front = [tokenizer.bos_token_id] if prepend_bos else []
    encoded = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
    rows = []
    for number, (text, ids) in enumerate(zip(texts, encoded, strict=True), 1):
        if front and ids[:1] == front:  # a chat template writes its own
            ids = ids[1:]
        if not ids:
            raise DataError(f"text {number} of {len(texts)} has no tokens: {clipped(text)}")
        rows.append((front + ids)[:max_tokens])
    return rows


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
    batches: list[list[int]] = []
    current: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        if current and (len(current) + 1) * lengths[index] > batch_tokens:
            batches.append(current)
            current = []
        current.append(index)
    if current:
        batches.append(current)
    return batches


def padded_batches(
    rows: Sequence[Sequence[int]],
    tokenizer: PreTrainedTokenizerBase,
    *,
    prepend_bos: bool,
    context: int,
    batch_tokens: int,
) -> Iterator[tuple[list[int], TokenBatch]]:
    """Yield :func:`token_batches` of the padded rows, and each padded on the right."""
    widths = [padded_width(len(row), context) for row in rows]
    for chosen in token_batches(widths, batch_tokens):
        batch = [rows[i] for i in chosen]
        yield (
            chosen,
            pad(batch, tokenizer, side="right", prepend_bos=prepend_bos, context=context),
        )


def count_tokens(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], prepend_bos: bool
) -> list[int]:
    """Return the number of tokens of each text, BOS included; 0 for a text without any."""
    encoded = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
    counts = []
    for ids in encoded:
        own_bos = prepend_bos and ids[:1] == [tokenizer.bos_token_id]
        length = len(ids) - own_bos
        counts.append(length + prepend_bos if length else 0)
    return counts
