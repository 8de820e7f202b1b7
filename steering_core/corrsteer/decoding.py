"""Greedy answers to many prompts in batches, with whatever hooks a stage puts around a batch."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import pandas as pd
import torch
from transformers import LogitsProcessor, LogitsProcessorList, PreTrainedTokenizerBase

from steering_core.errors import DataError, ModelError
from steering_core.generation.batching import batches_for, width_groups
from steering_core.generation.generate import continue_batch
from steering_core.models.language_model import LanguageModel
from steering_core.models.tokens import TokenBatch, pad, tokenize

#: Rows that are grouped by length together; larger means less padding.
BLOCK = 256

#: What to put around a batch, from the padded prompts and the rows' positions in the table. The
#: last of them may come several times: batches are filled up. It is called again for what is left
#: of a batch that did not fit into memory.
Around = Callable[[TokenBatch, list[int]], AbstractContextManager]


@dataclass(frozen=True)
class Decoding:
    """How answers are generated; one object serves selection, pruning and evaluation.

    With ``chat_template`` the prompts hold the control tokens of the model's chat template.
    ``batch_rows`` is rounded up to a multiple of 8 on a CPU (``generation.batching``).
    """

    new_tokens: int
    batch_rows: int = 8
    restrict_options: bool = False
    prepend_bos: bool = True
    chat_template: bool = False


def decode(
    lm: LanguageModel,
    rows: pd.DataFrame,
    how: Decoding,
    around: Around | None = None,
    *,
    cuts: Sequence[int] = (),
) -> Iterator[tuple[list[int], list[str | None]]]:
    """Yield ``(positions, completions)`` of batch after batch; every row once.

    A completion is None if the logits of one of its steps were NaN or infinite.

    Rows are taken ``BLOCK`` at a time, fewer up to a cut, by length within those; on a CPU an
    answer does not depend on ``batch_rows``. A batch that does not fit into memory is halved.

    Args:
        lm: the model.
        rows: columns ``prompt`` and ``letters``.
        how: options of decoding.
        around: context manager entered for each batch.
        cuts: numbers of rows; the first so many are all done before any other is begun.

    Raises:
        DataError: if a prompt and its answer do not fit the context.
        ModelError: if options are to be restricted and a letter is not one token.
    """
    prompts = tokenize(
        lm.tokenizer,
        rows["prompt"].tolist(),
        prepend_bos=how.prepend_bos,
        control_tokens=how.chat_template,
    )
    longest = max(map(len, prompts), default=0) + how.new_tokens
    if longest > lm.shape.context:
        raise DataError(
            f"prompt and answer need {longest} positions, the model has {lm.shape.context}: lower "
            "max_tokens and set long_prompts to drop, or lower new_tokens."
        )
    letters = rows["letters"].tolist()

    def run(width: int, chosen: list[int]) -> list[str | None]:
        batch = pad(
            [prompts[i] for i in chosen],
            lm.tokenizer,
            side="left",
            prepend_bos=how.prepend_bos,
            context=lm.shape.context - how.new_tokens,
            width=width,
        ).to(lm.device)
        processors = LogitsProcessorList()
        if how.restrict_options:
            tokens = [option_tokens(lm.tokenizer, letters[i]) for i in chosen]
            processors.append(OnlyOptions(tokens, batch.ids.shape[1]))
        with around(batch, chosen) if around else nullcontext():
            made = continue_batch(lm, batch, how.new_tokens, processors)
        texts = lm.tokenizer.batch_decode([row or [] for row in made], skip_special_tokens=True)
        return [None if row is None else text for row, text in zip(made, texts, strict=True)]

    blocks = _blocks(lm, [len(prompt) for prompt in prompts], how.new_tokens, cuts)
    widest = max((width for width, _ in blocks), default=0) + how.new_tokens
    batches = batches_for(lm, how.batch_rows, max(widest, longest))
    for width, order in blocks:
        for chosen, texts in batches.each(order, partial(run, width)):
            yield chosen, texts[: len(chosen)]


def _blocks(
    lm: LanguageModel, lengths: Sequence[int], new_tokens: int, cuts: Sequence[int]
) -> list[tuple[int, list[int]]]:
    """Return widths and the rows to pad to them, block by block, in the order of first rows."""
    found = []
    start = 0
    while start < len(lengths):
        end = min([len(lengths), start + BLOCK, *(cut for cut in cuts if cut > start)])
        groups = width_groups(lm, lengths[start:end], new_tokens)
        shifted = [(width, [start + i for i in order]) for width, order in groups]
        found += sorted(shifted, key=lambda group: min(group[1]))
        start = end
    return found


class OnlyOptions(LogitsProcessor):
    """Lets only the given tokens be the first one of each row's answer."""

    def __init__(self, tokens: Sequence[Sequence[int]], prompt_length: int):
        self.tokens = tokens
        self.prompt_length = prompt_length

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return scores with all other tokens at minus infinity, at the first step."""
        if input_ids.shape[1] > self.prompt_length:
            return scores
        only = torch.full_like(scores, -torch.inf)
        for row, tokens in enumerate(self.tokens):
            only[row, tokens] = scores[row, tokens]
        return only


def option_tokens(tokenizer: PreTrainedTokenizerBase, letters: Sequence[str]) -> list[int]:
    """Return the tokens that say a letter, with and without a space before it.

    Raises:
        ModelError: if there are no letters, or a letter is no single token.
    """
    if not len(letters):
        raise ModelError("restrict_options: this task has no options; use it for select tasks.")
    found = []
    for letter in letters:
        forms = tokenizer([letter, f" {letter}"], add_special_tokens=False)["input_ids"]
        single = {ids[0] for ids in forms if len(ids) == 1} - {tokenizer.unk_token_id}
        if not single:
            raise ModelError(f"restrict_options: {letter!r} is not one token of this model.")
        found += sorted(single)
    return found
