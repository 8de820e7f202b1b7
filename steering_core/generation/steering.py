"""Add vectors to the residual stream at chosen positions."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from jaxtyping import Bool, Float

from steering_core.models.language_model import LanguageModel
from steering_core.models.residual_stream import edit_residual
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
    """
    where = steered_positions(prompt, positions)[..., None]
    added = vectors.to(lm.device, lm.dtype)[:, None]

    def edit(residual: torch.Tensor) -> torch.Tensor:
        if residual.shape[1] == where.shape[1] > 1:
            return torch.where(where, residual + added, residual)
        return residual + added

    with edit_residual(lm, site, edit):
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
    added = vectors.to(lm.device, lm.dtype)[:, None]

    def edit(residual: torch.Tensor) -> torch.Tensor:
        return torch.where(mask, residual + added, residual)

    with edit_residual(lm, site, edit):
        yield
