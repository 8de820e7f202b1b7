"""An intervention: what is added to the residual stream of a batch, and where.

Every steering method and every CorrSteer plan ends in an :class:`Intervention`: at one or several
sites, either a vector (:class:`RowVectors`) or a program that is solved at every position
(:class:`~steering_core.generation.adaptive.RowPrograms`), possibly behind a gate
(:class:`GatedRows`). Decoding and the KL divergence both run the model under it with
:func:`run_steered`.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from steering_core.errors import DataError, ModelError
from steering_core.generation.adapter import ScaledAdapter
from steering_core.generation.adaptive import AdaptiveSteering, RowPrograms, own_counts
from steering_core.methods.gates import Gate
from steering_core.models.language_model import LanguageModel
from steering_core.models.residual_stream import Edit, edit_residual, locate
from steering_core.models.site import Site
from steering_core.models.tokens import TokenBatch

T = TypeVar("T")
log = logging.getLogger(__name__)

#: Which prompt positions are steered: the last token, or all tokens. New tokens always are.
Positions = Literal["last", "all"]


class Steering(Protocol):
    """What acts at one site on the rows of a batch."""

    def at(
        self, rows: Int[torch.Tensor, " n"], residual: Float[torch.Tensor, "n d_model"]
    ) -> Float[torch.Tensor, "n d_model"]:
        """Return the residuals, each of a row of the batch, with what is added there."""


class Addition(Protocol):
    """What is added at one site to n rows."""

    def rows(self, chosen: Sequence[int]) -> "Addition":
        """Return what is added to the rows ``chosen``."""

    def start(self) -> Steering:
        """Return what steers the rows of one batch."""


@dataclass(frozen=True)
class RowVectors:
    """A vector for each of n rows, (n, d_model), or one vector for all rows, (d_model,)."""

    vectors: Float[np.ndarray, "*n d_model"]

    def rows(self, chosen: Sequence[int]) -> "RowVectors":
        """Return the vectors of the rows ``chosen``."""
        return RowVectors(self.vectors[chosen]) if self.vectors.ndim == 2 else self

    def norms(self, n: int) -> Float[np.ndarray, " n"]:
        """Return the norm of what is added to each of ``n`` rows."""
        return np.broadcast_to(np.linalg.norm(self.vectors.astype(np.float64), axis=-1), n)

    def start(self) -> "_VectorSteering":
        """Return what adds the vectors to the rows of one batch."""
        return _VectorSteering(self.vectors)


class _VectorSteering:
    """Adds a vector to each row of a batch, in the precision of the residual stream.

    That is usually the model's own precision; Mamba keeps a float32 stream beside bfloat16 weights.
    """

    def __init__(self, vectors: Float[np.ndarray, "*n d_model"]):
        self._vectors = torch.tensor(vectors)
        self._ready: torch.Tensor | None = None

    def at(
        self, rows: Int[torch.Tensor, " n"], residual: Float[torch.Tensor, "n d_model"]
    ) -> Float[torch.Tensor, "n d_model"]:
        """Return the residuals with the vectors of their rows added."""
        if self._ready is None:
            self._ready = self._vectors.to(residual.device, residual.dtype)
        return residual + (self._ready if self._ready.ndim == 1 else self._ready[rows])


@dataclass(frozen=True, eq=False)
class GatedRows:
    """What is added at a site where a gate is open (:class:`steering_core.methods.gates.Gate`).

    Attributes:
        inner: vectors, or programs that are solved at every position.
        gate: for residuals as the site sees them.
        site: where they act; where it is centred, so are the residuals of the gate.
        n: how many rows there are.
    """

    inner: Addition
    gate: Gate
    site: Site
    n: int

    def rows(self, chosen: Sequence[int]) -> "GatedRows":
        """Return what is added to the rows ``chosen``."""
        return GatedRows(self.inner.rows(chosen), self.gate, self.site, len(chosen))

    def start(self) -> "GatedSteering":
        """Return what steers the rows of one batch."""
        return GatedSteering(self)


class OpenAt:
    """Where a gate is open, for raw residuals on the model's device.

    Args:
        gate: for residuals as the site sees them.
        site: where the residuals are; where it is centred, so are they before the dot product.
    """

    def __init__(self, gate: Gate, site: Site):
        # w·(h − mean h) = (w − mean w)·h.
        weight = site.view(np.asarray(gate.weight, dtype=np.float64))
        self._weight, self._bias = torch.tensor(weight, dtype=torch.float32), gate.bias

    def __call__(self, residual: Float[torch.Tensor, "n d_model"]) -> Bool[torch.Tensor, " n"]:
        """Return at which residuals the gate is open."""
        self._weight = self._weight.to(residual.device)
        # Do not use a matrix product: its last digits depend on the number of rows.
        return (residual.float() * self._weight).sum(dim=-1) + self._bias > 0


class GatedSteering:
    """Acts on the positions of a batch at which a gate is open.

    Attributes:
        inner: what acts there.
    """

    def __init__(self, gated: GatedRows):
        self.inner = gated.inner.start()
        self._open, self._n = OpenAt(gated.gate, gated.site), gated.n
        self._opened: list[torch.Tensor] = []

    def at(
        self, rows: Int[torch.Tensor, " n"], residual: Float[torch.Tensor, "n d_model"]
    ) -> Float[torch.Tensor, "n d_model"]:
        """Return the residuals, those behind an open gate with what is added to them."""
        opened = self._open(residual)
        place = opened.nonzero()[:, 0]
        count = torch.zeros(self._n, dtype=torch.long, device=residual.device)
        self._opened.append(count.index_add_(0, rows.to(count.device), opened.long()))
        # Called even without an open position: a program counts its passes.
        moved = self.inner.at(rows.to(place.device)[place], residual[place])
        return residual.index_copy(0, place, moved)

    def opened(self, passes: Int[np.ndarray, " batch"]) -> Int[np.ndarray, " batch"]:
        """Return at how many steerable positions of each row the gate was open.

        Args:
            passes: forward passes that belong to each row.
        """
        return own_counts(self._opened, passes)


@dataclass(frozen=True)
class Intervention:
    """What is added to the residual streams of n rows.

    Attributes:
        at: the vectors, or the program, of each site, possibly behind a gate.
        positions: which prompt positions are steered. Every new token is steered too.
        adapter: changes the modules of the model at every position; None for all that steers.
    """

    at: Mapping[Site, RowVectors | RowPrograms | GatedRows]
    positions: Positions = "last"
    adapter: ScaledAdapter | None = None

    @property
    def layers(self) -> list[int]:
        """The layers that are steered, ascending."""
        return sorted({site.layer for site in self.at})

    @property
    def is_adaptive(self) -> bool:
        """Whether a program is solved at every position of some site."""
        return any(isinstance(_inside(what), RowPrograms) for what in self.at.values())

    @property
    def is_gated(self) -> bool:
        """Whether some site is steered only where a gate is open."""
        return any(isinstance(what, GatedRows) for what in self.at.values())

    def rows(self, chosen: Sequence[int]) -> "Intervention":
        """Return the intervention on the rows ``chosen``."""
        return Intervention(
            {site: what.rows(chosen) for site, what in self.at.items()},
            self.positions,
            None if self.adapter is None else self.adapter.rows(chosen),
        )

    def float32(self) -> "Intervention":
        """Return the intervention with its vectors in float32, as plans store them."""
        at = {
            site: RowVectors(what.vectors.astype(np.float32))
            if isinstance(what, RowVectors)
            else what
            for site, what in self.at.items()
        }
        return Intervention(at, self.positions, self.adapter)

    def norms(self, n: int) -> Float[np.ndarray, " n"] | None:
        """Return the norm of what is added to each of ``n`` rows, over all sites together.

        None for an adaptive program or a gate, where positions differ in what is added, and for an
        adapter, which changes weights.
        """
        if self.adapter is not None:
            return None
        squares = np.zeros(n)
        for what in self.at.values():
            if not isinstance(what, RowVectors):
                return None
            squares = squares + what.norms(n) ** 2
        return np.sqrt(squares)

    def check(self, lm: LanguageModel) -> None:
        """Check that the vectors are finite and as wide as the residual stream.

        Raises:
            DataError: if they are not.
        """
        for site, outer in self.at.items():
            what = _inside(outer)
            if isinstance(what, RowPrograms):
                continue
            if what.vectors.shape[-1] != lm.shape.d_model:
                raise DataError(
                    f"the steering vector at {site.hook_name} has {what.vectors.shape[-1]} "
                    f"dimensions, the model {lm.shape.d_model}: it is of another model."
                )
            if not np.isfinite(what.vectors).all():
                raise DataError(
                    f"a steering vector at {site.hook_name} is not finite: steer only rows that "
                    "have a solution."
                )


def _inside(what: RowVectors | RowPrograms | GatedRows) -> RowVectors | RowPrograms:
    """Return what is behind a gate, or the same if there is no gate."""
    return what.inner if isinstance(what, GatedRows) else what


def steered_positions(prompt: TokenBatch, positions: Positions) -> Bool[torch.Tensor, "batch seq"]:
    """Return which positions of a left-padded prompt are steered.

    ``last`` is the last prompt token, ``all`` every real token; never padding, never BOS.
    """
    if positions == "all":
        return prompt.mask & ~prompt.bos
    last = torch.zeros_like(prompt.mask)
    last[:, -1] = True
    return last & ~prompt.bos


def text_positions(
    batch: TokenBatch, last: Int[torch.Tensor, " batch"], steer_prompt: bool
) -> tuple[Bool[torch.Tensor, "batch seq"], Bool[torch.Tensor, "batch seq"]]:
    """Return the positions of whole texts that predict a new token, and those that are steered.

    Args:
        batch: prompts with their continuations, padded on the right.
        last: column of the last prompt token of each.
        steer_prompt: whether the whole prompt is steered, not its last token alone.
    """
    after = torch.arange(batch.ids.shape[1], device=last.device)[None] >= last[:, None]
    predicting = after & batch.mask & batch.mask.roll(-1, dims=1)
    predicting[:, -1] = False
    return predicting, batch.mask & ~batch.bos & (after | steer_prompt)


class Applied:
    """An intervention while it acts on one batch.

    Attributes:
        steering: what acts at each site.
    """

    def __init__(self, intervention: Intervention):
        self.steering = {site: what.start() for site, what in intervention.at.items()}

    @property
    def _adaptive(self) -> list[AdaptiveSteering]:
        inner = [getattr(one, "inner", one) for one in self.steering.values()]
        return [one for one in inner if isinstance(one, AdaptiveSteering)]

    def added(self, passes: Int[np.ndarray, " batch"]) -> Int[np.ndarray, " batch"] | None:
        """Return at how many positions of each row something was added, at all sites together.

        None unless each site has a program that is solved at every position, or a gate: a vector
        without one is added everywhere.

        Args:
            passes: as of :meth:`unsolved`.
        """
        counts = np.zeros(len(passes), dtype=np.int64)
        for one in self.steering.values():
            inner = getattr(one, "inner", one)
            if isinstance(inner, AdaptiveSteering):
                counts += inner.added(passes)
            elif isinstance(one, GatedSteering):
                counts += one.opened(passes)
            else:
                return None
        return counts

    def unsolved(self, passes: Int[np.ndarray, " batch"]) -> Int[np.ndarray, " batch"]:
        """Return at how many steered positions of each row a program had no solution.

        Args:
            passes: forward passes that belong to each row. Later passes are not counted: the row
                had ended, and only others of its batch went on.
        """
        counts = np.zeros(len(passes), dtype=np.int64)
        for one in self._adaptive:
            counts += one.unsolved(passes)
        return counts

    def grow(self) -> bool:
        """Extend paths that were too short; return whether any is longer now."""
        return any([one.grow() for one in self._adaptive])


@contextmanager
def steer(
    lm: LanguageModel, intervention: Intervention, where: Bool[torch.Tensor, "batch seq"]
) -> Iterator[Applied]:
    """Steer the forward passes inside the block: the first at ``where``, later ones throughout.

    With a KV cache the first pass of ``generate`` carries the whole prompt, and each later pass one
    new token. A single pass over whole texts is steered at exactly the positions ``where``:
    positions do not see each other's vectors at their own site, so one pass adds to each position
    what generation added there.

    Args:
        lm: the model.
        intervention: on the rows of the batch.
        where: which positions of the first pass are steered.

    Raises:
        ModelError: if a later pass carries more than one token, because there is no KV cache.
    """
    applied = Applied(intervention)
    place = where.to(lm.device).nonzero(as_tuple=True)
    for site in intervention.at:  # before any hook: a place inside a block is looked for once
        locate(lm, site)
    with ExitStack() as stack:
        if intervention.adapter is not None:
            stack.enter_context(intervention.adapter.acting(lm))
        for site, steering in applied.steering.items():
            stack.enter_context(edit_residual(lm, site, _edit(steering.at, place)))
        yield applied


def _edit(
    add: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    place: tuple[torch.Tensor, torch.Tensor],
) -> Edit:
    first = True

    def edit(residual: torch.Tensor) -> torch.Tensor:
        nonlocal first
        if first:
            first = False
            steered = residual.clone()
            steered[place] = nan_if_too_long(add(place[0], residual[place]))
            return steered
        if residual.shape[1] != 1:
            raise ModelError("steered generation needs the KV cache: set use_cache.")
        rows = torch.arange(len(residual), device=residual.device)
        return nan_if_too_long(add(rows, residual[:, 0]))[:, None]

    return edit


def run_steered(
    lm: LanguageModel,
    intervention: Intervention,
    where: Bool[torch.Tensor, "batch seq"],
    run: Callable[[], T],
) -> tuple[T, Applied]:
    """Call ``run`` under an intervention, again whenever a steering path was too short for it.

    Args:
        lm: the model.
        intervention: on the rows of the batch.
        where: as of :func:`steer`.
        run: runs the model on the batch.

    Returns:
        What ``run`` returned, and the intervention as it acted on the batch then.

    Raises:
        PathRangeError: if a path was too short and has no decoder to be extended with.
    """
    while True:
        with steer(lm, intervention, where) as applied:
            result = run()
        if not applied.grow():
            return result, applied
        log.info("a residual lay beyond the steering path: the path is longer now, and runs again")


def nan_if_too_long(
    residual: Float[torch.Tensor, "*n d_model"],
) -> Float[torch.Tensor, "*n d_model"]:
    """Return residuals, with NaN for each that is infinite or whose square overflows float32.

    A norm would divide such a residual by infinity, and the model would go on with zeros as if
    nothing were wrong. From NaN all logits are NaN, and the text is recorded as lost.
    """
    square = residual.float().square().sum(dim=-1, keepdim=True)
    return torch.where(torch.isfinite(square), residual, torch.nan)
