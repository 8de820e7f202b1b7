"""Read, encode and pool the residual stream of many layers while the model generates.

Encoding one new token at a time would read every encoder for a handful of numbers. So the residuals
of ``BUFFERED`` steps are kept and encoded together. Rows that have ended are left out.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float, Int

from steering_core.corrsteer.accumulate import Pool
from steering_core.corrsteer.scores import PooledStatistic
from steering_core.errors import ModelError
from steering_core.generation.decode import end_tokens
from steering_core.models.language_model import LanguageModel, removed_after
from steering_core.models.residual_stream import edit_residual
from steering_core.models.site import Site
from steering_core.models.sparse_autoencoder import FeatureDictionary, FeatureEncoder
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
    """Pooled numbers of one batch.

    Each key is a layer and a space. ``mask: all`` is the union of two pools, of the prompt before
    its last position and of the positions that generate; the published mask has a pool of its own.

    Args:
        rows: of the batch.
        readers: what is read where.
        statistics: what is pooled.
        published: whether ``mask: all`` is the published code's mask (:func:`capture`).
    """

    def __init__(
        self,
        rows: int,
        readers: Sequence[Reader],
        statistics: Sequence[PooledStatistic],
        *,
        published: bool,
    ):
        self.generated: dict[tuple[int, str], Pool] = {}
        self.prompt: dict[tuple[int, str], Pool] = {}
        self.first: dict[tuple[int, str], Pool] = {}
        for reader in readers:
            key = reader.site.layer, reader.space
            mine = [v for v in statistics if v.space == reader.space]
            whole = {v.pooling for v in mine if v.mask == "all"}
            if published:
                mine = [v for v in mine if v.mask != "all"]
            if mine:
                self.generated[key] = Pool(rows, {v.pooling for v in mine})
            if whole:
                (self.first if published else self.prompt)[key] = Pool(rows, whole)

    def values(self, layer: int, statistic: PooledStatistic) -> Float[torch.Tensor, "rows f"]:
        """Return the pooled numbers of a layer."""
        key = layer, statistic.space
        if statistic.mask == "generation":
            return self.generated[key].result(statistic.pooling)
        if key in self.first:
            return self.first[key].result(statistic.pooling)
        return _union(self.prompt[key], self.generated[key], statistic.pooling)


@contextmanager
def capture(
    lm: LanguageModel,
    readers: Sequence[Reader],
    statistics: Sequence[PooledStatistic],
    prompt: TokenBatch,
    *,
    published_length: int | None = None,
) -> Iterator[Captured]:
    """Capture one ``generate`` call; read the result after the block.

    Args:
        lm: the model.
        readers: what to read where.
        statistics: what to pool.
        prompt: the batch.
        published_length: the most tokens of an answer, to pool under ``mask: all`` what the
            published code pools. That code cuts as many positions as the answer has tokens from the
            start of a buffer that begins with the left padding. For an answer of one token that is
            the first position alone: padding in all rows but the longest of a batch, where it is
            BOS. Which rows have padding depends on how they are put into batches.

    Raises:
        ModelError: if a site was passed less often than the model ran.
    """
    captured = Captured(
        len(prompt.ids), readers, statistics, published=published_length is not None
    )
    by_site: dict[Site, list[Reader]] = {}
    for reader in readers:
        by_site.setdefault(reader.site, []).append(reader)
    tracker = EndTracker(end_tokens(lm), prompt)
    taps = [
        _Tap(site, mine, captured, tracker, published_length or 0) for site, mine in by_site.items()
    ]
    with ExitStack() as stack:
        hook = lm.model.register_forward_pre_hook(tracker.before, with_kwargs=True)
        stack.enter_context(removed_after(hook))
        for tap in taps:
            stack.enter_context(edit_residual(lm, tap.site, tap.read))
        yield captured
    for tap in taps:
        tap.finish()


class CapturedBatches:
    """An observer of decoding that captures every batch.

    Args:
        lm: the model; all arguments are those of :func:`capture`.
        readers: what to read where.
        statistics: what to pool.
        published_length: of the published mask.
    """

    def __init__(
        self,
        lm: LanguageModel,
        readers: Sequence[Reader],
        statistics: Sequence[PooledStatistic],
        published_length: int | None = None,
    ):
        self._capture = partial(capture, lm, readers, statistics, published_length=published_length)
        self._last: Captured | None = None

    @contextmanager
    def __call__(self, prompt: TokenBatch, chosen: list[int]) -> Iterator[None]:
        """Capture a batch; one that fails leaves nothing behind."""
        with self._capture(prompt) as captured:
            yield
        self._last = captured

    def take(self) -> Captured:
        """Return the numbers of the batch that was decoded last, once.

        Raises:
            ValueError: if they were taken already.
        """
        if self._last is None:
            raise ValueError("no batch was captured since the last one was taken.")
        last, self._last = self._last, None
        return last


class EndTracker:
    """Follows which rows have ended, from the tokens that the model is fed."""

    def __init__(self, ends: Sequence[int], prompt: TokenBatch):
        self.prompt = prompt
        self.ends = torch.tensor(list(ends), device=prompt.ids.device, dtype=torch.long)
        self.alive: list[torch.Tensor] = []

    @property
    def steps(self) -> int:
        """Forward passes so far."""
        return len(self.alive)

    def passes(self) -> Int[torch.Tensor, " rows"]:
        """Return how many of them were made for each row before it ended."""
        return torch.stack(self.alive).sum(0)

    def before(self, module: torch.nn.Module, args: tuple, kwargs: dict) -> None:
        """Note the tokens of a forward pass; a hook before the model."""
        if not self.alive:
            self.alive.append(torch.ones_like(self.prompt.mask[:, 0]))
            return
        fed = (kwargs["input_ids"] if "input_ids" in kwargs else args[0])[:, -1]
        self.alive.append(self.alive[-1] & ~torch.isin(fed, self.ends))


class _Tap:
    """Reads one site and changes nothing.

    Args:
        site: where.
        readers: what is read there.
        captured: where the pooled numbers go.
        tracker: of the rows that have ended.
        first: how many positions from the start of the padded prompt on to keep, if a reader
            pools them.
    """

    def __init__(
        self,
        site: Site,
        readers: list[Reader],
        captured: Captured,
        tracker: EndTracker,
        first: int,
    ):
        self.site, self._tracker, self._steps = site, tracker, 0

        def pools(found: dict[tuple[int, str], Pool]) -> list[tuple[Reader, Pool]]:
            mine = [(reader, found.get((site.layer, reader.space))) for reader in readers]
            return [(reader, pool) for reader, pool in mine if pool is not None]

        self._generated = pools(captured.generated)
        self._prompt, self._first = pools(captured.prompt), pools(captured.first)
        self._held: list[torch.Tensor] = []
        self._kept: list[torch.Tensor] = []
        self._left = first if self._first else 0

    def read(self, residual: torch.Tensor) -> torch.Tensor:
        """Keep what is pooled of one forward pass."""
        if self._steps == 0:
            prompt = self._tracker.prompt
            real = prompt.mask[:, :-1] & ~prompt.bos[:, :-1]
            for reader, pool in self._prompt:
                pool_positions(pool, reader, residual[:, :-1], real)
        if self._left > 0:
            self._kept.append(residual[:, : self._left].clone())
            self._left -= self._kept[-1].shape[1]
        self._held.append(residual[:, -1].clone())  # a view would keep the whole prompt
        self._steps += 1
        if len(self._held) == BUFFERED:
            self._flush()
        return residual

    def _flush(self) -> None:
        """Encode and pool what is held of the last positions."""
        if not self._held:
            return
        held = torch.stack(self._held, dim=1)
        alive = torch.stack(self._tracker.alive[self._steps - held.shape[1] : self._steps], dim=1)
        self._held = []
        for reader, pool in self._generated:
            pool.add(reader.encode(held[alive]), alive.sum(dim=1))

    def finish(self) -> None:
        """Pool what is left after the last forward pass.

        Raises:
            ModelError: if the site was passed less often than the model ran.
        """
        self._flush()
        if self._steps != self._tracker.steps:
            raise ModelError(
                f"{self.site.hook_name} was passed {self._steps} times in {self._tracker.steps} "
                "forward passes."
            )
        if self._first:
            residual, counts = torch.cat(self._kept, dim=1), self._tracker.passes()
            counted = torch.arange(residual.shape[1], device=counts.device) < counts[:, None]
            for reader, pool in self._first:
                pool_positions(pool, reader, residual, counted)


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
