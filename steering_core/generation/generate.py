"""Generate continuations of prompts, steered or not."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from transformers import LogitsProcessorList

from steering_core.errors import DataError
from steering_core.generation.sampling import InverseCdfSampling, draws
from steering_core.generation.steering import Positions, steer_generation
from steering_core.models.language_model import LanguageModel
from steering_core.models.site import Site
from steering_core.models.tokens import pad


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn; ``temperature`` None is greedy decoding."""

    new_tokens: int = 100
    temperature: float | None = 1.0
    top_p: float = 0.9
    seed: int = 0


@torch.no_grad()
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
) -> list[list[int]]:
    """Return the new token ids of each prompt, up to and including the end token.

    Prompts are batched by length with left padding, attention mask and KV cache. The order and
    the draws are the caller's, whatever the batch size.

    Args:
        lm: the model.
        prompts: token ids with BOS where the site wants it.
        example_ids: names of the prompts; they seed the draws.
        sampling: how tokens are drawn.
        site: where to steer; also says whether the first token is BOS.
        vectors: what to add for each prompt; None leaves the model alone.
        positions: which prompt positions are steered besides every new token.
        batch_size: prompts at a time.
        tick: called with the number of prompts done after every batch.

    Raises:
        DataError: if prompt and continuation do not fit the context, or a vector is not finite.

    """
    longest = max(map(len, prompts)) + sampling.new_tokens
    if longest > lm.shape.context:
        raise DataError(
            f"prompt and new tokens need {longest} positions, the model has {lm.shape.context}: "
            "lower new_tokens."
        )
    if vectors is not None and not np.isfinite(vectors).all():
        raise DataError("a steering vector is not finite: steer only inputs that were solved.")
    uniforms = None
    if sampling.temperature is not None:
        uniforms = draws(example_ids, sampling.new_tokens, sampling.seed)
    ends = end_tokens(lm)
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
    out: list[list[int]] = [[] for _ in prompts]
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        batch = pad(
            [prompts[i] for i in chosen], lm.tokenizer, side="left", prepend_bos=site.prepend_bos
        ).to(lm.device)
        width = batch.ids.shape[1]
        processors = LogitsProcessorList()
        if uniforms is not None and sampling.temperature is not None:
            processors.append(
                InverseCdfSampling(uniforms[chosen], width, sampling.temperature, sampling.top_p)
            )
        steering = nullcontext()
        if vectors is not None:
            steering = steer_generation(lm, site, torch.tensor(vectors[chosen]), batch, positions)
        with steering:
            ids = lm.model.generate(
                input_ids=batch.ids,
                attention_mask=batch.mask.long(),
                max_new_tokens=sampling.new_tokens,
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                pad_token_id=lm.tokenizer.pad_token_id,
                eos_token_id=ends or None,
                logits_processor=processors,
            )
        for i, row in zip(chosen, ids[:, width:].tolist(), strict=True):
            out[i] = _until(row, ends)
        if tick is not None:
            tick(len(chosen))
    return out


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
