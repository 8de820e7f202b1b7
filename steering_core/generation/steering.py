"""Add vectors to the residual stream at chosen positions."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Literal

import torch
from jaxtyping import Bool, Float

from steering_core.errors import ModelError
from steering_core.models.language_model import LanguageModel
from steering_core.models.residual_stream import Edit, edit_residual
from steering_core.models.site import Site
from steering_core.models.tokens import TokenBatch

Positions = Literal["last", "all"]


def steered_positions(prompt: TokenBatch, positions: Positions) -> Bool[torch.Tensor, "batch seq"]:
    """Return which positions of a left-padded prompt are steered.

    ``last`` is the last prompt token, ``all`` every real token; never padding, never BOS.
    """
    if positions == "all":
        return prompt.mask & ~prompt.bos
    last = torch.zeros_like(prompt.mask)
    last[:, -1] = True
    return last & ~prompt.bos


@contextmanager
def steer_generation(
    lm: LanguageModel,
    site: Site,
    vectors: Float[torch.Tensor, "batch d_model"],
    prompt: TokenBatch,
    positions: Positions = "last",
) -> Iterator[None]:
    """Steer ``generate`` inside the block: the prompt's positions, then every new token.

    With the KV cache the first pass carries the whole prompt and each later pass one token.

    Raises:
        ModelError: if a later pass carries more, because generation runs without a cache.

    """
    where = steered_positions(prompt, positions)[..., None]
    add = _adder(vectors)
    with edit_generation(
        lm,
        site,
        lambda residual: torch.where(where, add(residual), residual),
        add,
    ):
        yield


@contextmanager
def edit_generation(
    lm: LanguageModel, site: Site, edit_prompt: Edit, edit_token: Edit
) -> Iterator[None]:
    """Apply ``edit_prompt`` to the first pass inside the block and ``edit_token`` to later ones.

    Raises:
        ModelError: if a later pass carries more than one token, because there is no KV cache.

    """
    edit_next: Callable[[torch.Tensor], torch.Tensor] = edit_prompt

    def edit(residual: torch.Tensor) -> torch.Tensor:
        nonlocal edit_next
        if edit_next is edit_token and residual.shape[1] != 1:
            raise ModelError("steered generation needs the KV cache: set use_cache.")
        now, edit_next = edit_next, edit_token
        return now(residual)

    with edit_residual(lm, site, edit):
        yield


@contextmanager
def steer_sites(
    lm: LanguageModel,
    interventions: Sequence[tuple[Site, Float[torch.Tensor, "batch d_model"]]],
    prompt: TokenBatch,
    positions: Positions = "last",
) -> Iterator[None]:
    """Steer ``generate`` inside the block at several sites in the same passes."""
    with ExitStack() as stack:
        for site, vectors in interventions:
            stack.enter_context(steer_generation(lm, site, vectors, prompt, positions))
        yield


@contextmanager
def steer_positions(
    lm: LanguageModel,
    site: Site,
    vectors: Float[torch.Tensor, "batch d_model"],
    where: Bool[torch.Tensor, "batch seq"],
) -> Iterator[None]:
    """Steer one forward pass inside the block at exactly the positions ``where``."""
    mask = where.to(lm.device)[..., None]
    add = _adder(vectors)

    def edit(residual: torch.Tensor) -> torch.Tensor:
        return torch.where(mask, add(residual), residual)

    with edit_residual(lm, site, edit):
        yield


def _adder(vectors: Float[torch.Tensor, "batch d_model"]) -> Edit:
    """Return what adds each row's vector to all its positions, in the precision of the stream.

    That is mostly the model's own; Mamba keeps its stream in float32 beside bfloat16 weights.
    """
    added: torch.Tensor | None = None

    def add(residual: torch.Tensor) -> torch.Tensor:
        nonlocal added
        if added is None:
            added = vectors.to(residual.device, residual.dtype)[:, None]
        return nan_if_too_long(residual + added)

    return add


def nan_if_too_long(
    residual: Float[torch.Tensor, "*n d_model"],
) -> Float[torch.Tensor, "*n d_model"]:
    """Return residuals with NaN for one that is infinite or whose square overflows float32.

    A norm would divide that one by infinity, and the model would go on with zeros as if nothing
    were wrong. From NaN all logits are NaN, and the text is recorded as lost.
    """
    square = residual.float().square().sum(dim=-1, keepdim=True)
    return torch.where(torch.isfinite(square), residual, torch.nan)
