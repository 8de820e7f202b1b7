"""The modules of a block that write to the stream: attention and MLP, where an SAE may sit, too.

Families name the modules of a block differently, and some have a norm behind attention or the MLP,
whose output is what is added. So the modules are found by what they compute: on two tokens, the
output of the block must be its input plus the outputs of two of its modules, one after the other.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import combinations
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from steering_core.errors import ModelError
from steering_core.models.language_model import LanguageModel, StopForward, removed_after

#: Names of modules of transformers, for SAEs whose hook is the name of a module.
_ATTENTION = ("self_attn", "attn", "attention", "self_attention", "linear_attn")
_MLP = ("mlp", "feed_forward", "block_sparse_moe", "moe")
_NAMES = {"attn": _ATTENTION, "mlp": _MLP}


@dataclass(frozen=True)
class Places:
    """Names of the modules of a block whose outputs are added to the stream.

    Attributes:
        attention: its output is what attention adds (``hook_attn_out``).
        mlp: its output is what the MLP adds (``hook_mlp_out``).
        in_turn: the MLP reads the stream after attention, so there is a ``hook_resid_mid``.
    """

    attention: str
    mlp: str
    in_turn: bool


_found: WeakKeyDictionary[nn.Module, dict[int, Places]] = WeakKeyDictionary()


def module_at(lm: LanguageModel, layer: int, stream: str) -> nn.Module:
    """Return the module of a block whose output is at a place inside the block.

    Args:
        lm: the model.
        layer: of the block.
        stream: ``mid``, ``attn_out`` or ``mlp_out`` as TransformerLens has them; ``attn`` or
            ``mlp`` for the output of the module of that kind. For ``mid``, attention's.

    Raises:
        ModelError: if the block has no such place.
    """
    block = lm.blocks[layer]
    if stream in _NAMES:
        there = [name for name in _NAMES[stream] if hasattr(block, name)]
        if not there:
            raise ModelError(
                f"{lm.shape.architecture}: block {layer} has no module "
                f"{' or '.join(_NAMES[stream])}, where the SAE sits: choose another SAE."
            )
        return block.get_submodule(there[0])
    places = find_places(lm, layer)
    if stream == "mid" and not places.in_turn:
        raise ModelError(
            f"{lm.shape.architecture}: attention and MLP of block {layer} read the same stream, so "
            "there is no hook_resid_mid between them: choose another SAE."
        )
    return block.get_submodule(places.mlp if stream == "mlp_out" else places.attention)


@torch.no_grad()
def find_places(lm: LanguageModel, layer: int) -> Places:
    """Return the places of a block, found once for a model.

    No hook may be on the model the first time: a short pass runs.

    Raises:
        ModelError: if the output of the block is not its input and the outputs of two modules.
    """
    known = _found.setdefault(lm.model, {})
    if layer not in known:
        known[layer] = _search(lm, layer)
    return known[layer]


def _search(lm: LanguageModel, layer: int) -> Places:
    ids = torch.tensor([[1, 2]], device=lm.device)
    with _recorded(lm.blocks[layer]) as (stream, outputs, inputs):
        with suppress(StopForward):
            lm.model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    before, after = stream["before"], stream["after"]
    once = {name: made[0] for name, made in outputs.items() if len(made) == 1}
    slack = 1e-3 if lm.dtype == torch.float32 else 0.1
    best: tuple[float, str, str] | None = None
    for first, second in combinations(once, 2):  # in the order in which they ran
        a, m = once[first], once[second]
        size = min(float(a.norm()), float(m.norm()))
        error = float((before + a + m - after).norm()) / size if size else float("inf")
        if error < slack and (best is None or error < best[0] * 0.99):
            best = error, first, second
    if best is None:
        raise ModelError(
            f"{lm.shape.architecture}: the output of block {layer} is not its input plus the "
            "outputs of two of its modules, so where attention and the MLP write is unknown: "
            "choose an SAE at hook_resid_pre or hook_resid_post."
        )
    _, attention, mlp = best
    mid = before + once[attention]
    room = slack * float(once[attention].norm())
    in_turn = any(float((given - mid).norm()) <= room for given in inputs)
    return Places(attention, mlp, in_turn)


@contextmanager
def _recorded(block: nn.Module) -> Iterator[tuple[dict, dict[str, list], list]]:
    """Record input and output of a block, and of its modules; the pass ends after the block."""
    stream: dict[str, torch.Tensor] = {}
    outputs: dict[str, list[torch.Tensor]] = {}
    inputs: list[torch.Tensor] = []

    def before(_module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        stream["before"] = (args[0] if args else kwargs["hidden_states"]).double()

    def after(_module: nn.Module, _args: tuple, output: Any) -> None:
        stream["after"] = _tensor(output).double()
        raise StopForward

    def inner(name: str):
        def hook(_module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
            given = args[0] if args else kwargs.get("hidden_states")
            made = _tensor(output)
            if _fits(given, stream["before"]):
                inputs.append(given.double())
            if _fits(made, stream["before"]):
                outputs.setdefault(name, []).append(made.double())

        return hook

    handles = [
        block.register_forward_pre_hook(before, with_kwargs=True),
        block.register_forward_hook(after),
        *(
            child.register_forward_hook(inner(name), with_kwargs=True)
            for name, child in block.named_children()
        ),
    ]
    with removed_after(*handles):
        yield stream, outputs, inputs


def _tensor(output: Any) -> Any:
    return output[0] if isinstance(output, tuple) else output


def _fits(value: Any, stream: torch.Tensor) -> bool:
    return isinstance(value, torch.Tensor) and value.shape == stream.shape
