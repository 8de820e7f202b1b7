"""Run an intervention on a plain transformers model, through hooks that are always removed.

The experiments know their prompts and drive the decode loop. Here the caller does, so the hooks
find out by themselves which tokens of a forward pass belong to the prompt: a hook on the model
reads the ids, the attention mask and the cache of each pass, and ``generate`` says where a new
prompt begins.
"""

import functools
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from transformers import PreTrainedTokenizerBase

from steering_core.errors import ModelError
from steering_core.generation.adaptive import AdaptiveSolver
from steering_core.generation.intervention import Positions, nan_if_too_long
from steering_core.methods.solutions import SOLVED
from steering_core.models.devices import float64_device
from steering_core.models.language_model import LanguageModel
from steering_core.models.residual_stream import edit_residual, locate
from steering_core.models.site import Site
from steering_core.optimize.path import SteeringPath
from steering_core.optimize.solution import BEYOND, INFEASIBLE, OPTIMAL, SATISFIED
from steering_core.optimize.substitution import Substitution, dense_optima
from steering_core.optimize.working_set.solver import WorkingSet

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel

T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FixedVector:
    """One vector for every input, in residual-stream units."""

    vector: Float[np.ndarray, " d_model"]

    def start(self, site: Site, device: torch.device) -> "_Fixed":
        """Return what acts on the passes of one block."""
        return _Fixed(self.vector)


@dataclass(frozen=True)
class SolvedProgram:
    """A program that is solved for each prompt, or again at every token.

    Attributes:
        program: ``qp``, ``socp`` or ``dense``.
        mode: ``static`` solves it at the last token of a prompt, and that vector is added to every
            steered token. ``adaptive`` solves it again at every steered token.
        tau: margin on the logit.
        parameter: λ of the QP or ε of the SOCP; NaN for ``dense``.
        weight: w of the logit, of the probe or of a calibrated direction, oriented to the target
            class; of k logits, ``(k, d_model)``.
        bias: its b; of k logits, ``(k,)``.
        path: of the logit on the decoder, in the program's metric and at its costs. Several logits
            have a working set instead, and ``dense`` needs neither.
        inverse: A⁻¹ of the metric, which maps solutions on the path back; None for the identity.
    """

    program: Literal["qp", "socp", "dense"]
    mode: Literal["static", "adaptive"]
    tau: float
    parameter: float
    weight: Float[np.ndarray, "*k d_model"]
    bias: float | Float[np.ndarray, " k"]
    path: SteeringPath | WorkingSet | None
    inverse: Float[np.ndarray, "d_model d_model"] | None = None

    def start(self, site: Site, device: torch.device) -> "_Solved":
        """Return what acts on the passes of one block."""
        if isinstance(self.path, SteeringPath):
            solver = AdaptiveSolver(
                self.path, self.weight, self.bias, self.program, site, device, self.inverse
            )
            return _Solved(self, solver)
        return _Solved(self, _MarginSolver(self, site, device))


@dataclass
class Attached:
    """An intervention while it acts on a model.

    Attributes:
        passes: number of forward passes that were steered.
        decode: calls a decode loop. Its first pass begins a prompt, and no later one does. Only a
            loop without a KV cache needs it, and only outside of ``generate``.
    """

    acting: list["_Fixed | _Solved"] = field(default_factory=list)
    passes: int = 0
    decode: Callable[[Callable[[], T]], T] = lambda run: run()

    def unsolved(self) -> int:
        """Return how many solves had no certified solution; nothing was added there."""
        return sum(one.unsolved() for one in self.acting)


@contextmanager
def attach(
    model: "PreTrainedModel",
    tokenizer: PreTrainedTokenizerBase | None,
    lm: LanguageModel,
    at: dict[Site, FixedVector | SolvedProgram],
    positions: Positions,
    steer_bos: bool,
) -> Iterator[Attached]:
    """Steer every forward pass of ``model`` inside the block.

    Args:
        model: any causal language model of transformers.
        tokenizer: its tokenizer, for the id of BOS; without one, that of the configuration.
        lm: the same model, with its shape.
        at: what is added at each site.
        positions: which prompt tokens are steered. New tokens always are.
        steer_bos: whether BOS is steered too where ``positions`` covers it.
    """
    owner = model.config if tokenizer is None else tokenizer
    wants_bos = any(site.prepend_bos for site in at) and tokenizer is not None
    passes = _Passes(getattr(owner, "bos_token_id", None), positions, steer_bos, wants_bos)
    applied = Attached(decode=passes.generate)
    with _no_hooks(model):
        for site in at:
            locate(lm, site)
    with ExitStack() as stack:
        stack.enter_context(_generate_told(model, passes))
        handle = model.register_forward_pre_hook(passes.begin, with_kwargs=True)
        stack.callback(handle.remove)
        stack.callback(lambda: setattr(applied, "passes", passes.count))
        for site, what in at.items():
            acting = what.start(site, lm.device)
            applied.acting.append(acting)
            stack.enter_context(edit_residual(lm, site, functools.partial(_edit, acting, passes)))
        yield applied
    if lost := applied.unsolved():
        log.warning(
            "%d solves had no certified solution (the feasible range ends before the margin): "
            "nothing was added there.",
            lost,
        )


def _edit(
    acting: "_Fixed | _Solved", passes: "_Passes", residual: Float[torch.Tensor, "b s d"]
) -> Float[torch.Tensor, "b s d"]:
    if passes.where is None:
        raise ModelError(
            "a block ran outside a forward pass of the model: call the model itself, not its parts."
        )
    where = passes.where.to(residual.device)
    if where.shape != residual.shape[:2]:
        raise ModelError(
            f"the residual stream has shape {tuple(residual.shape)}, but the pass has "
            f"{tuple(where.shape)} tokens: this model cannot be steered here."
        )
    if passes.starts:
        acting.prompt(residual.detach(), passes.last.to(residual.device))
    if passes.everywhere:
        rows = torch.arange(len(residual), device=residual.device)
        rows = rows.repeat_interleave(residual.shape[1])
        flat = residual.reshape(-1, residual.shape[-1])
        return nan_if_too_long(flat + acting.vectors(rows, flat.detach())).view_as(residual)
    place = where.nonzero(as_tuple=True)
    steered = residual.clone()
    chosen = residual[place]
    steered[place] = nan_if_too_long(chosen + acting.vectors(place[0], chosen.detach()))
    return steered


class _Fixed:
    """Adds the same vector to every steered token."""

    def __init__(self, vector: Float[np.ndarray, " d_model"]):
        self._vector = torch.tensor(vector)

    def prompt(self, residual: torch.Tensor, last: torch.Tensor) -> None:
        """Take note of a new prompt."""

    def vectors(
        self, rows: Int[torch.Tensor, " n"], residual: Float[torch.Tensor, "n d_model"]
    ) -> Float[torch.Tensor, " d_model"]:
        """Return what to add to the residuals."""
        self._vector = self._vector.to(residual.device, residual.dtype)
        return self._vector

    def unsolved(self) -> int:
        """Return 0: there is nothing to solve."""
        return 0


class _MarginSolver:
    """A program without a path: the least vector without features, or several margins at once."""

    def __init__(self, what: SolvedProgram, site: Site, device: torch.device):
        self.device = float64_device(device)
        self._what = what
        self._weights = np.atleast_2d(what.weight).astype(np.float64)
        self._of_raw = site.view(self._weights)  # w·(h − mean h) = (w − mean w)·h
        inverse = None if what.inverse is None else np.asarray(what.inverse, dtype=np.float64)
        self._inside = Substitution(np.zeros((0, self._weights.shape[1])), inverse)

    def solve(
        self,
        residual: Float[torch.Tensor, "n d_model"],
        tau: Float[torch.Tensor, " n"],
        parameter: Float[torch.Tensor, " n"],
    ) -> tuple[Float[torch.Tensor, "n d_model"], Int[torch.Tensor, " n"]]:
        """Return what to add to each raw residual, and codes into ``optimize.solution.STATUSES``.

        Args:
            residual: the raw stream, any float type.
            tau: margin of each row, on every logit.
            parameter: λ or ε of each row.
        """
        logits = residual.double().cpu().numpy() @ self._of_raw.T + self._what.bias
        shortfall, program = tau.cpu().numpy()[:, None] - logits, self._what.path
        if isinstance(program, WorkingSet):
            solve = program.qp if self._what.program == "qp" else program.socp
            found = solve(shortfall, parameter.cpu().numpy())
            solved = np.isin(found.status, SOLVED)
            vectors = self._inside.vectors(found.vector)
        else:
            vectors = dense_optima(self._weights, shortfall, self._inside)
            solved = ~np.isnan(vectors).any(axis=1)
        vectors = torch.tensor(np.where(solved[:, None], vectors, 0.0))
        codes = torch.tensor(np.where(solved, OPTIMAL, INFEASIBLE), device=self.device)
        return vectors.to(residual.device, residual.dtype), codes

    def grow(self) -> bool:
        """Return False: there is no path to follow further."""
        return False


class _Solved:
    """Solves a program for each prompt, or at every steered token."""

    def __init__(self, what: SolvedProgram, solver: AdaptiveSolver | _MarginSolver):
        self._what, self._solver = what, solver
        self._of_prompt: torch.Tensor | None = None
        self._missing: list[torch.Tensor] = []

    def prompt(
        self, residual: Float[torch.Tensor, "b s d_model"], last: Int[torch.Tensor, " b"]
    ) -> None:
        """Solve the program at the last token of each prompt, if it is solved once a prompt."""
        if self._what.mode == "static":
            rows = torch.arange(len(residual), device=residual.device)
            self._of_prompt = self._solve(residual[rows, last])

    def vectors(
        self, rows: Int[torch.Tensor, " n"], residual: Float[torch.Tensor, "n d_model"]
    ) -> Float[torch.Tensor, "n d_model"]:
        """Return what to add to the residuals, each of a row of the batch."""
        if self._what.mode == "adaptive":
            return self._solve(residual)
        return self._of_prompt[rows.to(self._of_prompt.device)].to(residual.device)

    def _solve(self, residual: Float[torch.Tensor, "n d_model"]) -> torch.Tensor:
        like = {"dtype": torch.float64, "device": self._solver.device}
        tau = torch.full((len(residual),), self._what.tau, **like)
        parameter = torch.full((len(residual),), self._what.parameter, **like)
        while True:
            vectors, codes = self._solver.solve(residual, tau, parameter)
            # The residuals are here only now, so the path is followed further at once.
            if not (codes == BEYOND).any() or not self._solver.grow():
                break
        self._missing.append(((codes != OPTIMAL) & (codes != SATISFIED)).sum())
        return vectors

    def unsolved(self) -> int:
        """Return how many solves had no certified solution."""
        return int(sum(int(count) for count in self._missing))


class _Passes:
    """What the hooks know of the forward pass that is running.

    Attributes:
        where: which of its tokens are steered.
        everywhere: whether all of them are.
        starts: whether it begins a prompt.
        last: column of the last prompt token of each row, if it begins a prompt.
        count: passes so far.
    """

    def __init__(self, bos: int | None, positions: Positions, steer_bos: bool, wants_bos: bool):
        self._bos, self._positions, self._steer_bos = bos, positions, steer_bos
        self._wants_bos = wants_bos and bos is not None
        self._prompt: Bool[torch.Tensor, "b s"] | None = None
        self._in_generate, self._awaits_prompt = 0, False
        self.where: Bool[torch.Tensor, "b s"] | None = None
        self.last: Int[torch.Tensor, " b"] | None = None
        self.everywhere = self.starts = False
        self.count = 0

    def generate(self, call: Callable[[], Any]) -> Any:
        """Call ``generate``: its first pass begins a prompt, and no later one does."""
        self._in_generate, self._awaits_prompt = self._in_generate + 1, True
        try:
            return call()
        finally:
            self._in_generate -= 1
            self._awaits_prompt = False

    def begin(self, module: torch.nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        """Read one forward pass before it runs."""
        ids = kwargs.get("input_ids", args[0] if args else None)
        tokens = kwargs.get("inputs_embeds") if ids is None else ids
        if tokens is None:
            raise ModelError("a forward pass needs input_ids or inputs_embeds.")
        if kwargs.get("cu_seq_lens_q") is not None:
            raise ModelError(
                "several texts are packed into one row, so prompts cannot be told from new tokens: "
                "turn continuous batching off."
            )
        shape, device = tokens.shape[:2], tokens.device
        cached = _past(kwargs) > 0
        self.count += 1
        self.starts = self._awaits_prompt if self._in_generate else not cached
        self._awaits_prompt = False
        if self.starts:
            self._begin_prompt(ids, kwargs.get("attention_mask"), shape, device)
            return
        self.everywhere = cached
        self.where = torch.ones(tuple(shape), dtype=torch.bool, device=device)
        if not cached:  # without a cache, the prompt runs again in front of the new tokens
            if self._prompt is None or len(self._prompt) != shape[0]:
                raise ModelError("a pass has other rows than the prompt that it goes on from.")
            self.where[:, : self._prompt.shape[1]] = self._prompt

    def _begin_prompt(
        self,
        ids: torch.Tensor | None,
        mask: torch.Tensor | None,
        shape: torch.Size,
        device: torch.device,
    ) -> None:
        if mask is not None and getattr(mask, "ndim", 0) != 2:
            raise ModelError(
                "the attention mask of the prompt is not of shape (batch, tokens), so padding "
                "cannot be told from tokens: use the default cache (DynamicCache)."
            )
        real = torch.ones(tuple(shape), dtype=torch.bool, device=device)
        if mask is not None:
            real = mask[:, -shape[1] :].to(device).bool()
        columns = torch.arange(shape[1], device=device)
        self.last = torch.where(real, columns, -1).amax(dim=1).clamp(min=0)
        bos = torch.zeros_like(real)
        if ids is not None and self._bos is not None:
            first = real & (real.cumsum(dim=1) == 1)
            bos = first & (ids == self._bos)
            if self._wants_bos and not bool(bos.any(dim=1).all()):
                self._wants_bos = False  # said once
                log.warning(
                    "the experiment's prompts began with BOS, and a prompt here does not: the "
                    "model behaves differently. Tokenize with BOS in front."
                )
        where = real.clone()
        if self._positions == "last":
            where = real & (columns == self.last[:, None])
        self._prompt = self.where = where if self._steer_bos else where & ~bos
        self.everywhere = False


@contextmanager
def _no_hooks(model: "PreTrainedModel") -> Iterator[None]:
    """Set all hooks of ``model`` aside: a place inside a block is found by what the block computes.

    The hooks of a block around this one would change that.
    """
    names = ("_forward_hooks", "_forward_pre_hooks")
    kept = [(module, name, getattr(module, name)) for module in model.modules() for name in names]
    for module, name, hooks in kept:
        setattr(module, name, type(hooks)())
    try:
        yield
    finally:
        for module, name, hooks in kept:
            setattr(module, name, hooks)


def _past(kwargs: dict[str, Any]) -> int:
    """Return how many tokens are in the cache of a pass."""
    cache = kwargs.get("past_key_values")
    if cache is None:
        return int(kwargs.get("cache_params") is not None)
    return int(cache.get_seq_length())


def refuse_chunks(config: "GenerationConfig", given: Mapping[str, Any]) -> None:
    """Refuse a prompt that is read in several passes.

    Raises:
        ModelError: if ``prefill_chunk_size`` is set.
    """
    if given.get("prefill_chunk_size") or getattr(config, "prefill_chunk_size", None):
        raise ModelError(
            "generate reads the prompt in chunks, so its last token is not known in the first "
            "pass: leave out prefill_chunk_size."
        )


@contextmanager
def _generate_told(model: "PreTrainedModel", passes: _Passes) -> Iterator[None]:
    """Let ``model.generate`` say where a prompt begins; ``pipeline`` calls it too."""
    own, before = "generate" in vars(model), model.generate

    @functools.wraps(before)
    def generate(*args: Any, **kwargs: Any) -> Any:
        refuse_chunks(kwargs.get("generation_config") or model.generation_config, kwargs)
        return passes.generate(lambda: before(*args, **kwargs))

    model.generate = generate
    try:
        yield
    finally:
        if own:
            model.generate = before
        else:
            del model.generate
