"""Generate continuations of prompts, steered or not."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from inspect import signature
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from transformers import LogitsProcessor, LogitsProcessorList

from steering_core.errors import DataError, ModelError
from steering_core.generation.adaptive import steer_generation_adaptively
from steering_core.generation.batching import batches_for, width_groups
from steering_core.generation.plan import AdaptivePlan
from steering_core.generation.sampling import FirstNotFinite, InverseCdfSampling, draws
from steering_core.generation.steering import Positions, steer_generation, steered_positions
from steering_core.models.language_model import LanguageModel, dtype_name
from steering_core.models.site import Site
from steering_core.models.tokens import TokenBatch, pad


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn; ``temperature`` None is greedy decoding."""

    new_tokens: int = 100
    temperature: float | None = 1.0
    top_p: float = 0.9
    seed: int = 0


@dataclass(frozen=True)
class Continuations:
    """What the model wrote after each prompt.

    Attributes:
        tokens: new token ids, up to and including the end token; None where the logits of a step
            were NaN or infinite, which happens if a vector is too long for the model's dtype.
        steered: positions that were to be steered: of the prompt, and one for each new token but
            the last, which no pass reads. Zero without steering.
        unsolved: those of them for which the program had no solution; nothing was added there.

    """

    tokens: list[list[int] | None]
    steered: Int[np.ndarray, " n"]
    unsolved: Int[np.ndarray, " n"]


def generate(
    lm: LanguageModel,
    prompts: Sequence[Sequence[int]],
    example_ids: Sequence[str],
    sampling: Sampling,
    *,
    site: Site,
    vectors: Float[np.ndarray, "n d_model"] | None = None,
    positions: Positions = "last",
    batch_size: int = 50,
    tick: Callable[[int], None] | None = None,
) -> list[list[int] | None]:
    """Return the ``tokens`` of :func:`continuations`."""
    return continuations(
        lm,
        prompts,
        example_ids,
        sampling,
        site=site,
        vectors=vectors,
        positions=positions,
        batch_size=batch_size,
        tick=tick,
    ).tokens


@torch.no_grad()
def continuations(
    lm: LanguageModel,
    prompts: Sequence[Sequence[int]],
    example_ids: Sequence[str],
    sampling: Sampling,
    *,
    site: Site,
    vectors: Float[np.ndarray, "n d_model"] | None = None,
    adaptive: AdaptivePlan | None = None,
    positions: Positions = "last",
    batch_size: int = 50,
    tick: Callable[[int], Any] | None = None,
) -> Continuations:
    """Continue every prompt, up to and including the end token.

    Prompts are batched by length with left padding, attention mask and KV cache. The order and the
    draws are the caller's, whatever the batch size, and a prompt may come more than once. On a CPU
    neither the width of a row, over which attention sums, nor the number of rows modulo 8 depends
    on the batch size either (:mod:`steering_core.generation.batching`).

    Args:
        lm: the model.
        prompts: token ids with BOS where the site wants it.
        example_ids: names of the prompts; they seed the draws.
        sampling: how tokens are drawn.
        site: where to steer; also says whether the first token is BOS.
        vectors: what to add for each prompt; None leaves the model alone.
        adaptive: instead of vectors, a program to be solved at every steered position.
        positions: which prompt positions are steered besides every new token.
        batch_size: sequences at a time, on a CPU rounded up to a multiple of 8; fewer if keys and
            values would exceed ``batching.CACHE_BYTES``, and half each time memory runs out.
        tick: called with the number of prompts done after every batch.

    Raises:
        DataError: if prompt and continuation do not fit the context, or a vector is not finite.
        ModelError: if logits are NaN or infinite without steering.
        PathRangeError: if a residual lies beyond an adaptive path that cannot be followed on.

    """
    longest = _checked_length(lm, prompts, sampling.new_tokens)
    if vectors is not None and not np.isfinite(vectors).all():
        raise DataError("a steering vector is not finite: steer only inputs that were solved.")
    writer = _Writer(lm, prompts, example_ids, sampling, site, vectors, adaptive, positions)
    groups = width_groups(lm, list(map(len, prompts)), sampling.new_tokens)
    widest = max(longest, groups[-1][0] + sampling.new_tokens)
    batches = batches_for(lm, batch_size, widest)
    for width, rows in groups:
        for done, _ in batches.each(rows, partial(writer.write, width)):
            if tick is not None:
                tick(len(done))
    if vectors is None and adaptive is None:
        require_finite(lm, writer.made.tokens)
    return writer.made


def _checked_length(lm: LanguageModel, prompts: Sequence[Sequence[int]], new_tokens: int) -> int:
    """Return the positions that the longest prompt needs with what is written after it."""
    longest = max(map(len, prompts)) + new_tokens
    if longest > lm.shape.context:
        raise DataError(
            f"prompt and new tokens need {longest} positions, the model has {lm.shape.context}: "
            "lower new_tokens."
        )
    return longest


class _Writer:
    """Continues batch after batch, as the arguments of :func:`continuations` say.

    ``made`` holds what was written so far.
    """

    def __init__(
        self,
        lm: LanguageModel,
        prompts: Sequence[Sequence[int]],
        example_ids: Sequence[str],
        sampling: Sampling,
        site: Site,
        vectors: Float[np.ndarray, "n d_model"] | None,
        adaptive: AdaptivePlan | None,
        positions: Positions,
    ):
        self._lm, self._prompts, self._sampling, self._site = lm, prompts, sampling, site
        self._vectors, self._adaptive, self._positions = vectors, adaptive, positions
        self._uniforms: torch.Tensor | None = None
        if sampling.temperature is not None:
            self._uniforms = draws(example_ids, sampling.new_tokens, sampling.seed)
        counts = np.zeros((2, len(prompts)), dtype=np.int64)
        self.made = Continuations([None] * len(prompts), *counts)

    def write(self, width: int, chosen: list[int]) -> None:
        """Continue the prompts ``chosen``, padded to ``width`` or the longest of them."""
        new_tokens, site = self._sampling.new_tokens, self._site
        batch = pad(
            [self._prompts[i] for i in chosen],
            self._lm.tokenizer,
            side="left",
            prepend_bos=site.prepend_bos,
            context=self._lm.shape.context - new_tokens,
            width=width,
        ).to(self._lm.device)
        processors = self._processors(chosen, batch.ids.shape[1])

        def go(steering: AbstractContextManager) -> list[list[int] | None]:
            with steering:
                return continue_batch(self._lm, batch, new_tokens, processors)

        if self._adaptive is not None:
            rows, steering = self._adaptive.until_in_range(
                chosen,
                lambda added: go(
                    steer_generation_adaptively(self._lm, site, added, batch, self._positions)
                ),
            )
            self.made.unsolved[chosen] = steering.unsolved(
                np.array([len(row or []) for row in rows])
            )
        elif self._vectors is not None:
            added = torch.tensor(self._vectors[chosen])
            rows = go(steer_generation(self._lm, site, added, batch, self._positions))
        else:
            rows = go(nullcontext())
        if self._adaptive is not None or self._vectors is not None:
            of_prompt = steered_positions(batch, self._positions).sum(dim=1).tolist()
            counts = [
                0 if row is None else n + len(row) - 1
                for n, row in zip(of_prompt, rows, strict=True)
            ]
            self.made.steered[chosen] = counts
        for i, row in zip(chosen, rows, strict=True):
            self.made.tokens[i] = row

    def _processors(self, chosen: list[int], start: int) -> LogitsProcessorList:
        """Return what draws the tokens after position ``start``; nothing, of greedy decoding."""
        how = self._sampling
        if self._uniforms is None or how.temperature is None:
            return LogitsProcessorList()
        draw = InverseCdfSampling(self._uniforms[chosen], start, how.temperature, how.top_p)
        return LogitsProcessorList([draw])


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


def require_finite(lm: LanguageModel, made: Sequence[object | None]) -> None:
    """Make sure that the unsteered model wrote something for every prompt.

    Args:
        lm: the model.
        made: tokens or texts; None where the logits were NaN or infinite.

    Raises:
        ModelError: if one is None, with what to change.
    """
    lost = sum(row is None for row in made)
    if lost:
        raise ModelError(
            f"{lm.shape.architecture} has NaN or infinite logits for {lost} of {len(made)} prompts "
            f"without any steering, in {dtype_name(lm)}: set `dtype: bfloat16` or `float32` in the "
            "model's section; in float32 the weights are damaged."
        )


def last_logits(lm: LanguageModel) -> dict[str, Any]:
    """Return the arguments that make ``generate`` compute logits at the last position alone.

    The position is given as an index. A number of positions, which ``generate`` would give, makes
    Gemma 4 leave out all others before its last blocks, where they may be read or steered.
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
    """Cut after the first end token; what follows is filling."""
    first = next((i for i, token in enumerate(row) if token in ends), len(row))
    return row[: first + 1]
