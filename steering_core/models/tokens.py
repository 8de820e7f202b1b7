"""Turn texts into padded token ids with their attention mask."""

import logging
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import dropwhile, pairwise
from typing import Literal, overload

import numpy as np
import torch
from jaxtyping import Bool, Int
from transformers import PreTrainedTokenizerBase

from steering_core.errors import DataError, ModelError, clipped
from steering_core.models.devices import to_device

log = logging.getLogger(__name__)

#: Padded widths are multiples of WIDTH_STEP; batches of single tokens have a multiple of ROW_STEP
#: rows. Then the kernels of a CPU give a row the same digits in every batch, so that results do
#: not depend on the batch size. docs/reliability.md has the measurements.
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


class TokenRows(Sequence[Int[np.ndarray, " length"]]):
    """Token ids of many texts in one array: 4 bytes per token and 8 per text.

    Lists of Python integers take ten times as much memory.
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

    Texts are data: the name of a special token in a text ("<|endoftext|>") is read as plain text.
    A few tokenizers cannot do that. Their special tokens are dropped, and a warning counts the
    texts.

    With ``control_tokens``, such names are special tokens, as in a prompt that a chat template
    wrote. If the template wrote a BOS, no other is prepended.

    A row longer than ``max_tokens`` (BOS included) is cut at its end.

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
    """Return the rows of :func:`tokenize` as one compact array."""
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


def token_counter(
    tokenizer: PreTrainedTokenizerBase, *, prepend_bos: bool
) -> Callable[[Sequence[str]], list[int]]:
    """Return :func:`count_tokens` of a tokenizer as a function of texts alone.

    The function warns of texts that name special tokens, which are read as plain text.
    """

    def count(texts: Sequence[str]) -> list[int]:
        named = sum(naming_special_tokens(tokenizer, texts))
        if named:
            log.warning(
                "%d of %d texts name special tokens of the tokenizer, such as <|endoftext|>: they "
                "are read as plain text",
                named,
                len(texts),
            )
        return count_tokens(tokenizer, texts, prepend_bos)

    return count


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
                front = [bos]  # the template wrote it
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
    """Return the ids of the special tokens except the unknown token."""
    added = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return frozenset(added | set(tokenizer.all_special_ids)) - {tokenizer.unk_token_id}


def naming_special_tokens(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[bool]:
    """Return for each text True if it contains the name of a special token.

    A chat template would turn such a name into the token itself.
    """
    added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    names = [name for name in added | set(tokenizer.all_special_tokens) if name]
    return [any(name in text for name in names) for text in texts]


def check_special_tokens(tokenizer: PreTrainedTokenizerBase, n_rows: int, name: str) -> None:
    """Check that the embedding has a row for every special token that is put into a text.

    A pad token without a row is replaced by another special token, since padding is masked.

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
    """Pad token rows to one length of at least ``width``: left to generate, right for one pass.

    ``prepend_bos`` must be as in the call that tokenised the rows. The first token of a row is
    marked as BOS if it was prepended or if it is the tokenizer's BOS.

    With ``context``, the positions of the model, the length is :func:`padded_width`.
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
        # int: torch cannot store the result of comparing a NumPy number, as TokenRows has.
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
    """Return the batch boundaries of rows sorted by length: 0, the end of each batch, and n.

    A batch takes as many rows as :func:`token_batches` allows.
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
