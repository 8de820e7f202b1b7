"""Turn texts into padded token ids with their attention mask, in a chat template if asked to."""

import logging
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import dropwhile, pairwise, takewhile
from typing import Literal, overload

import numpy as np
import torch
from jaxtyping import Bool, Int
from transformers import PreTrainedTokenizerBase

from steering_core.errors import ConfigError, DataError, ModelError, clipped
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
    chat_template: bool = False,
) -> list[list[int]]:
    """Return the token ids of each text.

    With ``prepend_bos`` one BOS stands in front. A tokenizer without a BOS prepends nothing, as
    sae-lens does.

    Texts are data: the name of a special token in a text ("<|endoftext|>") is read as plain text.
    A few tokenizers cannot do that. Their special tokens are dropped, and a warning counts the
    texts.

    With ``control_tokens``, such names are special tokens, as in a prompt that a chat template
    wrote. If the template wrote a BOS, no other is prepended.

    With ``chat_template``, each text is put into the tokenizer's chat template as the user's turn,
    followed by what opens the assistant's turn. What the template writes is read as tokens, and
    the text as data.

    A row longer than ``max_tokens`` (BOS included) is cut at its end; in a chat template, at the
    end of the text.

    Raises:
        DataError: if a text has no token besides BOS, or if a chat template leaves no room for it.

    """
    reading = _Reading(tokenizer, prepend_bos, control_tokens, chat_template)
    return list(_token_rows(reading, texts, max_tokens))


def tokenize_many(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    *,
    prepend_bos: bool,
    max_tokens: int | None = None,
    control_tokens: bool = False,
    chat_template: bool = False,
) -> TokenRows:
    """Return the rows of :func:`tokenize` as one compact array."""
    reading = _Reading(tokenizer, prepend_bos, control_tokens, chat_template)
    return TokenRows(_token_rows(reading, texts, max_tokens))


def count_tokens(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    prepend_bos: bool,
    *,
    control_tokens: bool = False,
    chat_template: bool = False,
) -> list[int]:
    """Return the length of each row of :func:`tokenize`; 0 for a text that has no token."""
    encoded = _Reading(tokenizer, prepend_bos, control_tokens, chat_template).rows(texts)
    return [len(front) + len(ids) if ids else 0 for _, front, ids in encoded]


def token_counter(
    tokenizer: PreTrainedTokenizerBase, *, prepend_bos: bool, chat_template: bool = False
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
        return count_tokens(tokenizer, texts, prepend_bos, chat_template=chat_template)

    return count


@dataclass(frozen=True)
class _Reading:
    """How texts become tokens; the fields are arguments of :func:`tokenize`."""

    tokenizer: PreTrainedTokenizerBase
    prepend_bos: bool
    control_tokens: bool = False
    chat_template: bool = False

    def rows(self, texts: Sequence[str]) -> Iterator[tuple[str, list[int], list[int]]]:
        """Yield each text, the BOS in front of it (a list of one id or none), its other tokens."""
        bos = self.tokenizer.bos_token_id
        wanted = [bos] if self.prepend_bos and bos is not None else []
        templated = self.control_tokens or self.chat_template
        special = frozenset() if templated else special_ids(self.tokenizer)
        n_spoilt = 0
        for start in range(0, len(texts), _BLOCK):
            block = list(texts[start : start + _BLOCK])
            rows = self._in_turns(block) if self.chat_template else self._ids(block, templated)
            for text, ids in zip(block, rows, strict=True):
                front = wanted
                if templated and bos is not None and ids[:1] == [bos]:
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

    def after_the_text(self, max_tokens: int) -> int:
        """Return how many tokens the chat template writes after the user's text; 0 without one.

        Raises:
            DataError: if what the template writes leaves no room within ``max_tokens``.
        """
        if not self.chat_template:
            return 0
        before, after = self._ids(around_the_turn(self.tokenizer), control_tokens=True)
        bos = self.tokenizer.bos_token_id
        prepended = self.prepend_bos and bos is not None and before[:1] != [bos]
        written = int(prepended) + len(before) + len(after)
        if written >= max_tokens:
            raise DataError(
                f"max_tokens: the chat template alone has {written} tokens, so {max_tokens} leave "
                "no room for a text: raise max_tokens."
            )
        # A tokenizer may join the end of the text with what follows it; whole rows show that.
        rows = self._ids(user_turns(self.tokenizer, ["a", "1", "?"]), control_tokens=True)
        tails = zip(*(reversed(row) for row in rows), strict=False)
        shared = sum(1 for _ in takewhile(lambda tokens: len(set(tokens)) == 1, tails))
        return min(shared, len(after))

    def _ids(self, texts: Sequence[str], control_tokens: bool) -> list[list[int]]:
        return self.tokenizer(
            list(texts),
            add_special_tokens=False,
            split_special_tokens=not control_tokens,
            verbose=False,
        )["input_ids"]

    def _in_turns(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of each text in the chat template; none for a blank text.

        A text that names a special token would be read as that token. It is read apart, and joined
        with the tokens of the template around it.
        """
        rows = self._ids(user_turns(self.tokenizer, texts), control_tokens=True)
        around = None
        for i, named in enumerate(naming_special_tokens(self.tokenizer, texts)):
            if not texts[i].strip():
                rows[i] = []
            elif named:
                around = around or self._ids(around_the_turn(self.tokenizer), control_tokens=True)
                (plain,) = self._ids([texts[i]], control_tokens=False)
                special = special_ids(self.tokenizer)  # where they cannot be read as plain text
                plain = [token for token in plain if token not in special]
                rows[i] = [*around[0], *plain, *around[1]]
        return rows


def _token_rows(
    reading: _Reading, texts: Sequence[str], max_tokens: int | None
) -> Iterator[list[int]]:
    tail = None
    for number, (text, front, ids) in enumerate(reading.rows(texts), 1):
        if not ids:
            raise DataError(f"text {number} of {len(texts)} has no tokens: {clipped(text)}")
        row = front + ids
        if max_tokens is not None and len(row) > max_tokens:
            tail = reading.after_the_text(max_tokens) if tail is None else tail
            row = row[: max_tokens - tail] + row[len(row) - tail :]
        yield row


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


# ---------------------------------------------------------------------------------- chat templates
#: Stands for the text where a template is looked at. No template changes it.
_MARK = "QUESTION"


def uses_chat_template(setting: Literal["auto"] | bool, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether texts stand in a chat template: with ``auto``, where the tokenizer has one.

    Raises:
        ConfigError: if the setting is true and the tokenizer has none.
    """
    if setting and setting != "auto" and not tokenizer.chat_template:
        raise ConfigError(
            "chat_template: the tokenizer of this model has none: set it to auto or false."
        )
    used = bool(setting and tokenizer.chat_template)
    written = str(tokenizer.chat_template)
    if used and "strftime_now" in written and "date_string" not in written:
        log.warning(
            "the chat template writes the date of the day, so that a stage that runs on another "
            "day reads other tokens: set chat_template to false, or run all stages on one day."
        )
    return used


#: The date that a chat template is given as ``date_string``, the variable of Llama 3's template.
#: Stages of one experiment run on several days and must read the same tokens. It is what that
#: template writes by itself where it cannot read a clock.
TODAY = "26 Jul 2024"


def user_turns(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[str]:
    """Return each text as the user's turn, followed by what opens the assistant's turn.

    A template that takes the date as ``date_string`` is given :data:`TODAY`.
    """
    return [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": text}],
            tokenize=False,
            add_generation_prompt=True,
            date_string=TODAY,
        )
        for text in texts
    ]


def around_the_turn(tokenizer: PreTrainedTokenizerBase) -> tuple[str, str]:
    """Return what the template writes before and after the user's text.

    Raises:
        ConfigError: if the template does not write the text as it is.
    """
    (whole,) = user_turns(tokenizer, [_MARK])
    before, found, after = whole.partition(_MARK)
    if not found:
        raise ConfigError(
            "chat_template: the template of this tokenizer does not hold the user's text as it "
            "is: set chat_template to false."
        )
    return before, after
