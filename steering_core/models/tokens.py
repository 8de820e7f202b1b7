"""Text to padded token ids with the mask that must go with them."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import dropwhile, pairwise
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Int
from transformers import PreTrainedTokenizerBase

from steering_core.errors import DataError, ModelError, clipped
from steering_core.models.devices import to_device
from steering_core.models.token_rows import TokenRows

log = logging.getLogger(__name__)

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
    control_tokens: bool = False,
) -> list[list[int]]:
    """Return the token ids of each text.

    With ``prepend_bos`` one BOS stands in front. A tokenizer without a BOS prepends nothing, as
    sae-lens does.

    Texts are data: the name of a special token in one ("<|endoftext|>") is read as plain text. A
    few tokenizers cannot do that. The special tokens that they still give are dropped, and a
    warning counts the texts.

    With ``control_tokens`` the names stand for the special tokens, as in a prompt that a chat
    template wrote. The BOS of a template is kept, and it is the only one.

    ``max_tokens`` (BOS included) cuts from the end; without it nothing is cut.

    Raises:
        DataError: if a text has no token besides BOS.

    """
    return list(_token_rows(tokenizer, texts, prepend_bos, max_tokens, control_tokens))


def tokenize_many(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    *,
    prepend_bos: bool,
    max_tokens: int | None = None,
    control_tokens: bool = False,
) -> TokenRows:
    """Return what :func:`tokenize` does, in little memory."""
    return TokenRows(_token_rows(tokenizer, texts, prepend_bos, max_tokens, control_tokens))


def _token_rows(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    prepend_bos: bool,
    max_tokens: int | None,
    control_tokens: bool,
) -> Iterator[list[int]]:
    encoded = _encoded(tokenizer, texts, prepend_bos, control_tokens)
    for number, (text, front, ids) in enumerate(encoded, 1):
        if not ids:
            raise DataError(f"text {number} of {len(texts)} has no tokens: {clipped(text)}")
        yield (front + ids)[:max_tokens]


def count_tokens(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    prepend_bos: bool,
    *,
    control_tokens: bool = False,
) -> list[int]:
    """Return the length of each row of :func:`tokenize`; 0 for a text that has no token."""
    encoded = _encoded(tokenizer, texts, prepend_bos, control_tokens)
    return [len(front) + len(ids) if ids else 0 for _, front, ids in encoded]


def _encoded(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    prepend_bos: bool,
    control_tokens: bool,
) -> Iterator[tuple[str, list[int], list[int]]]:
    """Yield each text, the BOS in front of it (a list of one id or none) and its other tokens."""
    bos = tokenizer.bos_token_id
    wanted = [bos] if prepend_bos and bos is not None else []
    special = frozenset() if control_tokens else special_ids(tokenizer)
    n_spoilt = 0
    for start in range(0, len(texts), _BLOCK):
        block = list(texts[start : start + _BLOCK])
        rows = tokenizer(
            block,
            add_special_tokens=False,
            split_special_tokens=not control_tokens,
            verbose=False,
        )["input_ids"]
        for text, ids in zip(block, rows, strict=True):
            front = wanted
            if control_tokens and bos is not None and ids[:1] == [bos]:
                front = [bos]  # written by the template
                ids = list(dropwhile(lambda token: token == bos, ids))
            elif not special.isdisjoint(ids):
                n_spoilt += 1
                ids = [token for token in ids if token not in special]
            yield text, front, ids
    if n_spoilt:
        log.warning(
            "%d of %d texts name special tokens that this tokenizer cannot read as plain text: "
            "these tokens are left out",
            n_spoilt,
            len(texts),
        )


def special_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Return the ids of special tokens, without the one that stands for unknown words."""
    added = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return frozenset(added | set(tokenizer.all_special_ids)) - {tokenizer.unk_token_id}


def naming_special_tokens(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[bool]:
    """Return for each text whether the name of a special token stands in it.

    In a chat template such a name is taken for the token itself.
    """
    added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    names = [name for name in added | set(tokenizer.all_special_tokens) if name]
    return [any(name in text for name in names) for text in texts]


def check_special_tokens(tokenizer: PreTrainedTokenizerBase, n_rows: int, name: str) -> None:
    """Check that the embedding has a row for every special token that is put into a text.

    A pad token without a row is replaced by another special token: padding is masked everywhere.

    Args:
        tokenizer: of the model; its pad token may change.
        n_rows: of the model's embedding.
        name: of the model, for messages.

    Raises:
        ModelError: if BOS, the end token or every candidate for padding is without a row.

    """
    ids = {role: getattr(tokenizer, f"{role}_token_id") for role in ("bos", "eos", "unk", "pad")}
    for role in ("bos", "eos"):
        if ids[role] is not None and ids[role] >= n_rows:
            raise ModelError(
                f"{name}: the {role.upper()} token of the tokenizer has the id {ids[role]}, and "
                f"the model's embedding has {n_rows} rows: the tokenizer belongs to another "
                "model, or the embedding was not resized after tokens were added."
            )
    if ids["pad"] is not None and ids["pad"] < n_rows:
        return
    for role in ("eos", "bos", "unk"):
        if ids[role] is not None and ids[role] < n_rows:
            tokenizer.pad_token = getattr(tokenizer, f"{role}_token")
            return
    raise ModelError(
        f"{name}: the pad token of the tokenizer has the id {ids['pad']}, the model's embedding "
        f"has {n_rows} rows, and there is no other special token to pad with."
    )


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

    ``prepend_bos`` is what the rows were tokenised with. The first token of a row is marked as BOS
    if it was prepended or if it is the tokenizer's BOS.

    With ``context``, the positions of the model, that length is :func:`padded_width`.
    """
    width = max(width, *map(len, rows))
    if context is not None:
        width = padded_width(width, context)
    ids = torch.full((len(rows), width), tokenizer.pad_token_id, dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.bool)
    bos = torch.zeros((len(rows), width), dtype=torch.bool)
    begins = tokenizer.bos_token_id is not None
    for i, row in enumerate(rows):
        start = width - len(row) if side == "left" else 0
        ids[i, start : start + len(row)] = torch.as_tensor(row, dtype=torch.long)
        mask[i, start : start + len(row)] = True
        # int: a row of TokenRows has NumPy's numbers, whose comparisons torch does not take.
        bos[i, start] = begins and (prepend_bos or int(row[0]) == tokenizer.bos_token_id)
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
