"""Greedy completions of the prompts of a task, by the decode loop of :mod:`generation.decode`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from transformers import LogitsProcessor, PreTrainedTokenizerBase

from steering_core.errors import ModelError
from steering_core.generation.decode import Decoded, Observer, decode
from steering_core.generation.intervention import Intervention
from steering_core.models.language_model import LanguageModel
from steering_core.models.tokens import tokenize

#: Rows that are grouped by length together; larger means less padding.
BLOCK = 256


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


def complete(
    lm: LanguageModel,
    rows: pd.DataFrame,
    how: Decoding,
    *,
    intervention: Intervention | None = None,
    observer: Observer | None = None,
    cuts: Sequence[int] = (),
) -> Iterator[tuple[Decoded, list[str | None]]]:
    """Yield what was decoded, and the texts of it, batch after batch; every row once.

    A text is None if the logits of one of its steps were NaN or infinite. Rows are taken ``BLOCK``
    at a time, fewer up to a cut, and grouped by length within those.

    Args:
        lm: the model.
        rows: columns ``prompt`` and ``letters``.
        how: options of decoding.
        intervention: on the rows; None leaves the model alone.
        observer: reads each batch.
        cuts: numbers of rows; the first so many are all done before any other is begun.

    Raises:
        DataError: as :func:`steering_core.generation.decode.decode`.
        ModelError: likewise, or if options are to be restricted and a letter is not one token.
    """
    tokenizer = lm.tokenizer
    letters = rows["letters"].tolist()

    def restricted(chosen: list[int], prompt_length: int) -> list[LogitsProcessor]:
        return [OnlyOptions([option_tokens(tokenizer, letters[i]) for i in chosen], prompt_length)]

    prompts = tokenize(
        tokenizer,
        rows["prompt"].tolist(),
        prepend_bos=how.prepend_bos,
        control_tokens=how.chat_template,
    )
    for decoded in decode(
        lm,
        prompts,
        how.new_tokens,
        prepend_bos=how.prepend_bos,
        batch_rows=how.batch_rows,
        intervention=intervention,
        processors=restricted if how.restrict_options else None,
        observer=observer,
        block_rows=BLOCK,
        cuts=cuts,
    ):
        written = [row or [] for row in decoded.tokens]
        texts = tokenizer.batch_decode(written, skip_special_tokens=True)
        lost = [row is None for row in decoded.tokens]
        yield decoded, [None if gone else text for gone, text in zip(lost, texts, strict=True)]


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
            raise ModelError(
                f"restrict_options: {letter!r} is not one token of this model: set "
                "restrict_options to false."
            )
        found += sorted(single)
    return found
