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
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from transformers import PreTrainedTokenizerBase

from steering_core.errors import ModelError
from steering_core.generation.adaptive import TokenSolver
from steering_core.generation.intervention import OpenAt, Positions, nan_if_too_long
from steering_core.generation.steered_method import program_solver
from steering_core.methods.gates import Gate
from steering_core.methods.solution_vectors import ProgramLogit
from steering_core.models.language_model import LanguageModel, removed_after
from steering_core.models.residual_stream import edit_residual, locate
from steering_core.models.site import Site
from steering_core.optimize.path import SteeringPath
from steering_core.optimize.solution import BEYOND, OPTIMAL, SATISFIED
from steering_core.optimize.substitution import Substitution

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel

T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class FixedVector:
    """One vector for every input, in residual-stream units.

    Attributes:
        vector: what is added.
        gate: where it is added; None is everywhere.
    """

    vector: Float[np.ndarray, " d_model"]
    gate: Gate | None = None

    def start(self, site: Site, device: torch.device) -> "_Acting":
        """Return what acts on the passes of one block."""
        return _behind(self.gate, site, _Fixed(self.vector))


@dataclass(frozen=True, eq=False)
class SolvedProgram:
    """A program that is solved for each prompt, or again at every token.

    Attributes:
        logit: what the margin is on, and how the program is solved: its metric, costs and guards.
            With the mode ``static`` it is solved at the last token of a prompt, and that vector is
            added to every steered token. With ``adaptive`` it is solved at every steered token.
        tau: margin on the logit.
        parameter: λ of the QP or ε of the SOCP; NaN for ``dense``.
        inside: the dictionary in the program's metric and at its costs.
        path: of the logit on that dictionary. Several logits have none, and ``dense`` needs none.
        gate: where its solutions are added; None is everywhere.
    """

    logit: ProgramLogit
    tau: float
    parameter: float
    inside: Substitution
    path: SteeringPath | None = None
    gate: Gate | None = None
    _solvers: dict[tuple[Site, torch.device], TokenSolver] = field(default_factory=dict, repr=False)

    def start(self, site: Site, device: torch.device) -> "_Acting":
        """Return what acts on the passes of one block; blocks share what they looked up."""
        at = (site, device)
        if at not in self._solvers:
            solver = program_solver(self.logit, self.inside, site, device, self.path)
            self._solvers[at] = solver
        return _behind(self.gate, site, _Solved(self, self._solvers[at]))


@dataclass
class Attached:
    """An intervention while it acts on a model.

    Attributes:
        passes: number of forward passes that were steered.
        decode: calls a decode loop. Its first pass begins a prompt, and no later one does. Only a
            loop without a KV cache needs it, and only outside of ``generate``.
    """

    acting: list["_Acting"] = field(default_factory=list)
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
        hook = model.register_forward_pre_hook(passes.begin, with_kwargs=True)
        stack.enter_context(removed_after(hook))
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
    acting: "_Acting", passes: "_Passes", residual: Float[torch.Tensor, "b s d"]
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


class _Solved:
    """Solves a program for each prompt, or at every steered token."""

    def __init__(self, what: SolvedProgram, solver: TokenSolver):
        self._what, self._solver = what, solver
        self._of_prompt: torch.Tensor | None = None
        self._missing: list[torch.Tensor] = []

    def prompt(
        self, residual: Float[torch.Tensor, "b s d_model"], last: Int[torch.Tensor, " b"]
    ) -> None:
        """Solve the program at the last token of each prompt, if it is solved once a prompt."""
        if self._what.logit.mode == "static":
            rows = torch.arange(len(residual), device=residual.device)
            self._of_prompt = self._solve(residual[rows, last])

    def vectors(
        self, rows: Int[torch.Tensor, " n"], residual: Float[torch.Tensor, "n d_model"]
    ) -> Float[torch.Tensor, "n d_model"]:
        """Return what to add to the residuals, each of a row of the batch."""
        if self._what.logit.mode == "adaptive":
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


class _Gated:
    """Lets another act on the steered tokens at which a gate is open."""

    def __init__(self, inner: _Fixed | _Solved, opened: OpenAt):
        self._inner, self._open = inner, opened

    def prompt(self, residual: torch.Tensor, last: torch.Tensor) -> None:
        """Take note of a new prompt."""
        self._inner.prompt(residual, last)

    def vectors(
        self, rows: Int[torch.Tensor, " n"], residual: Float[torch.Tensor, "n d_model"]
    ) -> Float[torch.Tensor, "n d_model"]:
        """Return what to add to the residuals: zeros where the gate is closed."""
        added, place = torch.zeros_like(residual), self._open(residual).nonzero()[:, 0]
        if len(place):
            added[place] = self._inner.vectors(rows[place], residual[place])
        return added

    def unsolved(self) -> int:
        """Return how many solves had no certified solution."""
        return self._inner.unsolved()


_Acting = _Fixed | _Solved | _Gated


def _behind(gate: Gate | None, site: Site, acting: _Fixed | _Solved) -> _Acting:
    return acting if gate is None else _Gated(acting, OpenAt(gate, site))


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
        """Read one forward pass before it runs. A hook of torch, which passes these arguments.

        Raises:
            ModelError: if the pass cannot be steered, with the reason.
        """
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
            self._begin_prompt(ids, kwargs.get("attention_mask"), shape, device, cached)
            return
        self.everywhere = cached
        self.where = torch.ones(tuple(shape), dtype=torch.bool, device=device)
        if not cached:  # without a cache, the prompt runs again in front of the new tokens
            if self._prompt is None or len(self._prompt) != shape[0]:
                raise ModelError(
                    "a forward pass without a cache has another number of texts than its prompt: "
                    "call generate for each batch by itself."
                )
            self.where[:, : self._prompt.shape[1]] = self._prompt

    def _begin_prompt(
        self,
        ids: torch.Tensor | None,
        mask: torch.Tensor | None,
        shape: torch.Size,
        device: torch.device,
        cached: bool,
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
            # With tokens in the cache, the text began in an earlier call.
            if self._wants_bos and not cached and not bool(bos.any(dim=1).all()):
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


#: What of ``generate`` makes its first pass another one than the prompt, and how.
_OTHER_FIRST_PASSES = {
    "prefill_chunk_size": "reads the prompt in chunks, so its last token is not known in the first "
    "pass",
    "assistant_model": "reads candidates of new tokens together with the prompt",
    "prompt_lookup_num_tokens": "reads candidates of new tokens together with the prompt",
    "assistant_early_exit": "reads candidates of new tokens together with the prompt",
    "use_mtp": "reads candidates of new tokens together with the prompt",
}


def refuse_other_first_passes(config: "GenerationConfig", given: Mapping[str, Any]) -> None:
    """Refuse to generate where the first pass is not the prompt, whole and alone.

    Raises:
        ModelError: if the prompt is read in chunks, or together with candidates of new tokens, as
            assisted decoding does.
    """
    for name, what in _OTHER_FIRST_PASSES.items():
        if given.get(name) or getattr(config, name, None):
            raise ModelError(
                f"generate {what}, so that another token than the prompt's last would be steered: "
                f"leave out {name}."
            )


@contextmanager
def _generate_told(model: "PreTrainedModel", passes: _Passes) -> Iterator[None]:
    """Let ``model.generate`` say where a prompt begins; ``pipeline`` calls it too."""
    own, before = "generate" in vars(model), model.generate

    @functools.wraps(before)
    def generate(*args: Any, **kwargs: Any) -> Any:
        refuse_other_first_passes(
            kwargs.get("generation_config") or model.generation_config, kwargs
        )
        return passes.generate(lambda: before(*args, **kwargs))

    model.generate = generate
    try:
        yield
    finally:
        if own:
            model.generate = before
        else:
            del model.generate
