"""The one decode loop: prompts in, new tokens out, under an intervention and with observers.

The main pipeline's continuations and CorrSteer's answers both come from :func:`decode`. Prompts are
grouped by width, batched with left padding, attention mask and KV cache, and steered. On a CPU,
neither the width of a row, over which attention sums, nor the number of rows modulo 8 depends on
the batch size (:mod:`steering_core.generation.batching`), and so neither does any token.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from inspect import signature
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from transformers import LogitsProcessor, LogitsProcessorList

from steering_core.errors import DataError, ModelError
from steering_core.generation.batching import batches_for, width_groups
from steering_core.generation.intervention import Intervention, run_steered, steered_positions
from steering_core.generation.sampling import FirstNotFinite, Sampling
from steering_core.models.language_model import LanguageModel, dtype_name
from steering_core.models.tokens import TokenBatch, pad

#: Returns the logits processors of a batch, from the rows in it and the padded prompt length.
Processors = Callable[[list[int], int], Sequence[LogitsProcessor]]

#: Returns a context manager that is entered around a batch, from the padded prompts and the rows
#: in it. The last row may come several times, since batches are filled up. It is called again if
#: the batch is repeated: after memory ran out, or after a steering path was extended.
Observer = Callable[[TokenBatch, list[int]], AbstractContextManager]


@dataclass(frozen=True)
class Decoded:
    """What the model wrote after some prompts.

    Attributes:
        rows: which prompts, as positions in the list that :func:`decode` was given.
        tokens: new token ids of each, up to and including the end token; None where the logits
            were NaN or infinite at a step before the end.
        steered: steered positions of each: of the prompt, and one for each new token but the last,
            which no pass reads. Zero without steering and for a lost row.
        unsolved: how many of them an adaptive program had no solution for; nothing was added
            there. A row under programs at several sites counts each of them.
        added: at how many of them something was added, where a program or a gate decides; equal to
            ``steered`` without either.
    """

    rows: list[int]
    tokens: list[list[int] | None]
    steered: Int[np.ndarray, " n"]
    unsolved: Int[np.ndarray, " n"]
    added: Int[np.ndarray, " n"]


def decode(
    lm: LanguageModel,
    prompts: Sequence[Sequence[int]],
    new_tokens: int,
    *,
    prepend_bos: bool,
    batch_rows: int,
    intervention: Intervention | None = None,
    processors: Processors | None = None,
    observer: Observer | None = None,
    block_rows: int | None = None,
    cuts: Sequence[int] = (),
) -> Iterator[Decoded]:
    """Yield what the model writes after the prompts, batch after batch; every prompt once.

    Args:
        lm: the model.
        prompts: token ids.
        new_tokens: how many to write at most.
        prepend_bos: whether the prompts begin with BOS.
        batch_rows: prompts at a time, on a CPU rounded up to a multiple of 8. Fewer if keys and
            values would exceed ``batching.CACHE_BYTES``, and half each time memory runs out.
        intervention: on the rows of ``prompts``; None leaves the model alone.
        processors: of a batch. Decoding is greedy; a processor may leave a drawn token only.
        observer: reads each batch.
        block_rows: group so many prompts by width at a time; None groups all of them.
        cuts: numbers of prompts. The first so many are all done before any other is begun.

    Raises:
        DataError: if a prompt and its new tokens do not fit the context, or a steering vector is
            not finite or of another width than the residual stream.
        ModelError: if logits are NaN or infinite without steering.
        PathRangeError: if a residual lies beyond an adaptive path that cannot be extended.
    """
    lengths = list(map(len, prompts))
    longest = max(lengths, default=0) + new_tokens
    if longest > lm.shape.context:
        raise DataError(
            f"prompt and new tokens need {longest} positions, the model has {lm.shape.context}: "
            "lower max_tokens or new_tokens; a CorrSteer experiment can leave such prompts out "
            "with long_prompts: drop."
        )
    if intervention is not None:
        intervention.check(lm)

    def run(width: int, chosen: list[int]) -> Decoded:
        batch = pad(
            [prompts[i] for i in chosen],
            lm.tokenizer,
            side="left",
            prepend_bos=prepend_bos,
            context=lm.shape.context - new_tokens,
            width=width,
        ).to(lm.device)
        chain = processors(chosen, batch.ids.shape[1]) if processors else ()
        mine = None if intervention is None else intervention.rows(chosen)
        return _decode_batch(lm, batch, chosen, new_tokens, chain, mine, observer)

    groups = _groups(lm, lengths, new_tokens, block_rows, cuts)
    widest = max((width for width, _ in groups), default=0) + new_tokens
    batches = batches_for(lm, batch_rows, max(widest, longest))
    for width, order in groups:
        for chosen, made in batches.each(order, partial(run, width)):
            n = len(chosen)  # without the rows that fill the batch up
            counts = (part[:n] for part in (made.steered, made.unsolved, made.added))
            decoded = Decoded(chosen, made.tokens[:n], *counts)
            if intervention is None:
                _require_finite(lm, decoded.tokens)
            yield decoded


def _decode_batch(
    lm: LanguageModel,
    batch: TokenBatch,
    chosen: list[int],
    new_tokens: int,
    processors: Sequence[LogitsProcessor],
    intervention: Intervention | None,
    observer: Observer | None,
) -> Decoded:
    def run() -> list[list[int] | None]:
        with observer(batch, chosen) if observer else nullcontext():
            return continue_batch(lm, batch, new_tokens, processors)

    if intervention is None:
        none = np.zeros(len(chosen), dtype=np.int64)
        return Decoded(chosen, run(), none, none, none)
    where = steered_positions(batch, intervention.positions)
    tokens, applied = run_steered(lm, intervention, where, run)
    of_prompt = where.sum(dim=1).tolist()
    steered = [
        0 if row is None else n + len(row) - 1 for n, row in zip(of_prompt, tokens, strict=True)
    ]
    passes = np.array([len(row or []) for row in tokens])  # a pass chooses each new token
    added = applied.added(passes)
    counts = applied.unsolved(passes), np.array(steered) if added is None else added
    return Decoded(chosen, tokens, np.array(steered), *counts)


def _groups(
    lm: LanguageModel,
    lengths: Sequence[int],
    new_tokens: int,
    block_rows: int | None,
    cuts: Sequence[int],
) -> list[tuple[int, list[int]]]:
    """Return widths and the prompts to pad to them, block by block, in the order of first rows."""
    n = len(lengths)
    found = []
    start = 0
    while start < n:
        end = min([n, start + (block_rows or n), *(cut for cut in cuts if cut > start)])
        groups = width_groups(lm, lengths[start:end], new_tokens)
        shifted = [(width, [start + i for i in order]) for width, order in groups]
        found += sorted(shifted, key=lambda group: min(group[1]))
        start = end
    return found


@torch.no_grad()
def continue_batch(
    lm: LanguageModel,
    batch: TokenBatch,
    new_tokens: int,
    processors: Sequence[LogitsProcessor],
) -> list[list[int] | None]:
    """Return the new ids of each left-padded prompt, up to and including the end token.

    The most likely token is taken at every step; ``processors`` may leave only a drawn one. A row
    is None if its logits were NaN or infinite at a step before its end.
    """
    ends, start = end_tokens(lm), batch.ids.shape[1]
    noted = FirstNotFinite(len(batch.ids), start, lm.device)
    ids = lm.model.generate(
        input_ids=batch.ids,
        attention_mask=batch.mask.long(),
        max_new_tokens=new_tokens,
        do_sample=False,
        use_cache=True,
        temperature=None,
        top_p=None,
        top_k=None,
        pad_token_id=lm.tokenizer.pad_token_id,
        eos_token_id=ends or None,
        logits_processor=LogitsProcessorList([noted, *processors]),
        **last_logits(lm),
    )
    rows = [_until(row, ends) for row in ids[:, start:].tolist()]
    finite = noted.finite([len(row) for row in rows])
    return [row if fine else None for row, fine in zip(rows, finite, strict=True)]


def _require_finite(lm: LanguageModel, tokens: Sequence[list[int] | None]) -> None:
    """Raise if the unsteered model wrote nothing for some prompt of a batch."""
    lost = sum(row is None for row in tokens)
    if lost:
        raise ModelError(
            f"{lm.shape.architecture} has NaN or infinite logits for {lost} of {len(tokens)} "
            f"prompts without any steering, in {dtype_name(lm)}: set `dtype: bfloat16` or "
            "`float32` in the model's section; in float32 the weights are damaged."
        )


def last_logits(lm: LanguageModel) -> dict[str, Any]:
    """Return the arguments that make ``generate`` compute logits at the last position alone.

    The position is given as an index. Given a number of positions instead, as ``generate`` would
    do, Gemma 4 drops all other positions before its last blocks, where they may be read or steered.
    """
    if "logits_to_keep" not in signature(lm.model.forward).parameters:
        return {}
    return {"logits_to_keep": torch.tensor([-1], device=lm.device)}


def end_tokens(lm: LanguageModel) -> list[int]:
    """Return the ids that end a text: the model's own, else the tokenizer's."""
    ends = lm.model.generation_config.eos_token_id
    if ends is None:
        ends = lm.tokenizer.eos_token_id
    return [] if ends is None else [ends] if isinstance(ends, int) else list(ends)


def _until(row: list[int], ends: Sequence[int]) -> list[int]:
    """Cut after the first end token; the rest is padding."""
    first = next((i for i, token in enumerate(row) if token in ends), len(row))
    return row[: first + 1]


def continuations(
    lm: LanguageModel,
    prompts: Sequence[Sequence[int]],
    example_ids: Sequence[str],
    sampling: Sampling,
    *,
    prepend_bos: bool,
    intervention: Intervention | None = None,
    batch_rows: int = 50,
    tick: Callable[[int], Any] | None = None,
) -> Decoded:
    """Return :func:`decode` of all prompts together, in their order, with sampled tokens.

    Draws belong to the prompt's name and not to the batch. A prompt may come more than once.

    Args:
        lm: the model.
        prompts: token ids.
        example_ids: names of the prompts; they seed the draws.
        sampling: how tokens are drawn.
        prepend_bos: as of :func:`decode`, as are ``intervention`` and ``batch_rows``.
        intervention: what steers each prompt.
        batch_rows: prompts at a time.
        tick: called with the number of prompts done after every batch.

    Raises:
        DataError, ModelError, PathRangeError: as :func:`decode`.
    """
    n = len(prompts)
    made = Decoded(list(range(n)), [None] * n, *np.zeros((3, n), dtype=np.int64))
    for batch in decode(
        lm,
        prompts,
        sampling.new_tokens,
        prepend_bos=prepend_bos,
        batch_rows=batch_rows,
        intervention=intervention,
        processors=sampling.processors(example_ids),
    ):
        for name in ("steered", "unsolved", "added"):
            getattr(made, name)[batch.rows] = getattr(batch, name)
        for i, row in zip(batch.rows, batch.tokens, strict=True):
            made.tokens[i] = row
        if tick is not None:
            tick(len(batch.rows))
    return made
