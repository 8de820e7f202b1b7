"""Read, encode and pool the residual stream of many layers while the model generates.

Encoding one new token at a time would read every encoder for a handful of numbers. Residuals of
a few steps are kept (``BUFFERED`` of them, whatever the length of the answer) and encoded at once,
without those of rows that have ended.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from steering_core.corrsteer.pool import Pool
from steering_core.corrsteer.variant import Variant
from steering_core.errors import ModelError
from steering_core.generation.generate import end_tokens
from steering_core.models.feature_encoder import FeatureEncoder
from steering_core.models.language_model import LanguageModel
from steering_core.models.residual_stream import edit_residual
from steering_core.models.site import Site
from steering_core.models.sparse_autoencoder import FeatureDictionary
from steering_core.models.tokens import TokenBatch

#: Anything that reads features: an SAE, or its encoder alone.
Encoder = FeatureDictionary | FeatureEncoder

BUFFERED = 32
_ENCODED_ROWS = 1024


@dataclass(frozen=True)
class Reader:
    """What is read at a site in one space.

    Attributes:
        site: where.
        space: ``features`` or ``raw``.
        size: how many numbers a position has.
        encode: raw residuals (n, d_model) to those numbers (n, size).
    """

    site: Site
    space: str
    size: int
    encode: Callable[[Float[torch.Tensor, "n d_model"]], Float[torch.Tensor, "n f"]]


def feature_reader(encoder: Encoder, site: Site) -> Reader:
    """Read SAE features at ``site``; the residual is centred first where the site is."""

    def encode(residual: torch.Tensor) -> torch.Tensor:
        residual = residual.float()
        if site.centred:
            residual = residual - residual.mean(-1, keepdim=True)
        return encoder.encode(residual).float()

    return Reader(site, "features", encoder.d_sae, encode)


def raw_reader(site: Site, d_model: int) -> Reader:
    """Read the dimensions of the residual stream as they are."""
    return Reader(site, "raw", d_model, lambda residual: residual.float())


class Captured:
    """Pooled numbers of one batch."""

    def __init__(self, rows: int, readers: Sequence[Reader], variants: Sequence[Variant]):
        self._generated: dict[tuple[int, str], Pool] = {}
        self._prompt: dict[tuple[int, str], Pool] = {}
        for reader in readers:
            key = reader.site.layer, reader.space
            mine = [v for v in variants if v.space == reader.space]
            if mine:
                self._generated[key] = Pool(rows, {v.pooling for v in mine})
            whole = {v.pooling for v in mine if v.mask == "all"}
            if whole:
                self._prompt[key] = Pool(rows, whole)

    def pools(self, layer: int, space: str) -> tuple[Pool | None, Pool | None]:
        """Pools of generated positions and of the prompt before the last position."""
        return self._generated.get((layer, space)), self._prompt.get((layer, space))

    def values(self, layer: int, variant: Variant) -> Float[torch.Tensor, "rows f"]:
        """Return the pooled numbers of a layer."""
        generated = self._generated[layer, variant.space]
        if variant.mask == "generation":
            return generated.result(variant.pooling)
        return _union(self._prompt[layer, variant.space], generated, variant.pooling)


@contextmanager
def capture(
    lm: LanguageModel, readers: Sequence[Reader], variants: Sequence[Variant], prompt: TokenBatch
) -> Iterator[Captured]:
    """Capture one ``generate`` call; read the result after the block.

    Raises:
        ModelError: if a site was passed less often than the model ran.
    """
    captured = Captured(len(prompt.ids), readers, variants)
    by_site: dict[Site, list[Reader]] = {}
    for reader in readers:
        by_site.setdefault(reader.site, []).append(reader)
    over = Over(end_tokens(lm), prompt)
    taps = [_Tap(site, mine, captured, over) for site, mine in by_site.items()]
    with ExitStack() as stack:
        handle = lm.model.register_forward_pre_hook(over.before, with_kwargs=True)
        stack.callback(handle.remove)
        for tap in taps:
            stack.enter_context(edit_residual(lm, tap.site, tap.read))
        yield captured
    for tap in taps:
        tap.flush()
        if tap.steps != over.steps:
            raise ModelError(
                f"{tap.site.hook_name} was passed {tap.steps} times in {over.steps} forward passes."
            )


class Over:
    """Follows which rows have ended, from the tokens that are fed."""

    def __init__(self, ends: Sequence[int], prompt: TokenBatch):
        self.prompt = prompt
        self.ends = torch.tensor(list(ends), device=prompt.ids.device, dtype=torch.long)
        self.alive: list[torch.Tensor] = []

    @property
    def steps(self) -> int:
        """Forward passes so far."""
        return len(self.alive)

    def passes(self) -> Int[np.ndarray, " rows"]:
        """Return how many of them were made for each row before it ended."""
        return torch.stack(self.alive).sum(0).cpu().numpy()

    def before(self, module: torch.nn.Module, args: tuple, kwargs: dict) -> None:
        """Hook before a forward pass of the model."""
        if not self.alive:
            self.alive.append(torch.ones_like(self.prompt.mask[:, 0]))
            return
        fed = (kwargs["input_ids"] if "input_ids" in kwargs else args[0])[:, -1]
        self.alive.append(self.alive[-1] & ~torch.isin(fed, self.ends))


class _Tap:
    """Reads one site; changes nothing."""

    def __init__(self, site: Site, readers: list[Reader], captured: Captured, over: Over):
        self.site, self.readers, self.captured, self.over = site, readers, captured, over
        self.steps = 0
        self._held: list[torch.Tensor] = []

    def read(self, residual: torch.Tensor) -> torch.Tensor:
        if self.steps == 0:
            self._read_prompt(residual)
        self._held.append(residual[:, -1].clone())  # a view would keep the whole prompt
        self.steps += 1
        if len(self._held) == BUFFERED:
            self.flush()
        return residual

    def flush(self) -> None:
        """Encode and pool what is held."""
        if not self._held:
            return
        held = torch.stack(self._held, dim=1)
        alive = torch.stack(self.over.alive[self.steps - held.shape[1] : self.steps], dim=1)
        self._held = []
        for reader in self.readers:
            pool, _ = self.captured.pools(self.site.layer, reader.space)
            if pool is not None:
                pool.add(reader.encode(held[alive]), alive.sum(dim=1))

    def _read_prompt(self, residual: torch.Tensor) -> None:
        prompt = self.over.prompt
        real = prompt.mask[:, :-1] & ~prompt.bos[:, :-1]
        for reader in self.readers:
            _, pool = self.captured.pools(self.site.layer, reader.space)
            if pool is not None:
                pool_positions(pool, reader, residual[:, :-1], real)


def pool_positions(
    pool: Pool,
    reader: Reader,
    residual: Float[torch.Tensor, "rows positions d_model"],
    counted: Bool[torch.Tensor, "rows positions"],
) -> None:
    """Encode the ``counted`` positions of each row, some at a time, and add them to ``pool``."""
    step = max(1, _ENCODED_ROWS // len(residual))
    for start in range(0, residual.shape[1], step):
        part, real = residual[:, start : start + step], counted[:, start : start + step]
        pool.add(reader.encode(part[real]), real.sum(dim=1))


def _union(prompt: Pool, generated: Pool, pooling: str) -> torch.Tensor:
    """Pool the positions of both; the prompt may have none but its last."""
    if isinstance(prompt.count, int):
        return generated.result(pooling)
    last = generated.result(pooling)
    if pooling == "max":
        return torch.maximum(prompt.top(), last)
    return (prompt.total() + last * generated.count[:, None]) / (prompt.count + generated.count)[
        :, None
    ]
