"""``mask: all`` as the published code has it: the first positions of the padded prompt.

There, what is pooled is cut from the start of a buffer that begins with the left padding: as many
positions as the answer has tokens. For an answer of one token that is the first position alone,
padding in all rows but the longest of a batch, where it is BOS. The option is there to match the
published numbers of that mask; which rows have padding depends on how they are put into batches.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from jaxtyping import Float

from steering_core.corrsteer.capture import Captured, Over, Reader, capture, pool_positions
from steering_core.corrsteer.pool import Pool
from steering_core.corrsteer.variant import Variant
from steering_core.generation.generate import end_tokens
from steering_core.models.language_model import LanguageModel
from steering_core.models.residual_stream import edit_residual
from steering_core.models.tokens import TokenBatch


class FirstPositions:
    """Pooled numbers of one batch: of ``mask: all`` the first positions, else as captured.

    Args:
        captured: of the variants of the other mask.
    """

    def __init__(self, captured: Captured):
        self.captured = captured
        self.pools: dict[tuple[int, str], Pool] = {}

    def values(self, layer: int, variant: Variant) -> Float[torch.Tensor, "rows f"]:
        """Return the pooled numbers of a layer."""
        if variant.mask == "generation":
            return self.captured.values(layer, variant)
        return self.pools[layer, variant.space].result(variant.pooling)


@contextmanager
def capture_published(
    lm: LanguageModel,
    readers: Sequence[Reader],
    variants: Sequence[Variant],
    prompt: TokenBatch,
    *,
    longest: int,
) -> Iterator[FirstPositions]:
    """Capture one ``generate`` call as :func:`steering_core.corrsteer.capture.capture` does.

    Args:
        lm: the model.
        readers: what to read where.
        variants: what to pool.
        prompt: the batch; its padding counts here.
        longest: most tokens of an answer, so most positions that are kept.

    Raises:
        ModelError: as ``capture``.
    """
    whole = [variant for variant in variants if variant.mask == "all"]
    others = [variant for variant in variants if variant.mask != "all"]
    mine = [r for r in readers if any(variant.space == r.space for variant in whole)]
    over = Over(end_tokens(lm), prompt)
    taps = {site: _Tap(longest) for site in {reader.site for reader in mine}}
    with ExitStack() as stack:
        found = FirstPositions(stack.enter_context(capture(lm, readers, others, prompt)))
        handle = lm.model.register_forward_pre_hook(over.before, with_kwargs=True)
        stack.callback(handle.remove)
        for site, tap in taps.items():
            stack.enter_context(edit_residual(lm, site, tap.read))
        yield found
    counts = torch.stack(over.alive).sum(0)
    for reader in mine:
        poolings = {variant.pooling for variant in whole if variant.space == reader.space}
        residual = torch.cat(taps[reader.site].kept, dim=1)
        first = torch.arange(residual.shape[1], device=counts.device) < counts[:, None]
        pool = Pool(len(residual), poolings)
        pool_positions(pool, reader, residual, first)
        found.pools[reader.site.layer, reader.space] = pool


class _Tap:
    """Keeps the first positions of one site, those of the prompt before those generated."""

    def __init__(self, longest: int):
        self.left = longest
        self.kept: list[torch.Tensor] = []

    def read(self, residual: torch.Tensor) -> torch.Tensor:
        if self.left > 0:
            self.kept.append(residual[:, : self.left].clone())
            self.left -= self.kept[-1].shape[1]
        return residual
