"""Read and edit the residual stream through hooks on the blocks, which are always removed.

An SAE may also sit inside a block, at what attention or the MLP adds to the stream
(:func:`module_at`). Families name the modules of a block differently, and some have a norm behind
attention or the MLP, whose output is what is added. So the modules are found by what they compute:
on two tokens, the output of the block must be its input plus the outputs of two of its modules, one
after the other.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import combinations
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import nn

from steering_core.errors import ModelError
from steering_core.models.devices import to_device
from steering_core.models.language_model import (
    LanguageModel,
    StopForward,
    dtype_name,
    removed_after,
)
from steering_core.models.site import Site
from steering_core.models.tokens import padded_batches, tokenize_many

#: Maps the raw residual stream (batch, seq, d_model) at a site to its replacement.
Edit = Callable[
    [Float[torch.Tensor, "batch seq d_model"]], Float[torch.Tensor, "batch seq d_model"]
]


@contextmanager
def edit_residual(lm: LanguageModel, site: Site, edit: Edit) -> Iterator[None]:
    """Apply ``edit`` at ``site`` on every forward pass inside the block.

    Args:
        lm: the model; its hooks are removed when the block ends, by an error too.
        site: where to edit.
        edit: maps the residual stream ``(batch, seq, d_model)`` there to its replacement.

    Raises:
        ModelError: if the layer is out of range.

    """
    block = _block(lm, site)
    if site.stream == "pre":

        def before(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
            if args:
                return (edit(args[0]), *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": edit(kwargs["hidden_states"])}

        handles = [block.register_forward_pre_hook(before, with_kwargs=True)]
    elif site.stream == "mid":
        handles = _edit_between(block, module_at(lm, site.layer, "mid"), edit)
    else:
        writer = block if site.stream == "post" else module_at(lm, site.layer, site.stream)

        def after(module: nn.Module, args: tuple, output: Any) -> Any:
            if isinstance(output, tuple):
                return (edit(output[0]), *output[1:])
            return edit(output)

        handles = [writer.register_forward_hook(after)]
    with removed_after(*handles):
        yield


def _edit_between(
    block: nn.Module, attention: nn.Module, edit: Edit
) -> list[torch.utils.hooks.RemovableHandle]:
    """Edit the stream between attention and MLP through what attention adds to it.

    An edit of the MLP's input alone would leave the stream itself as it was.
    """
    seen: list[torch.Tensor] = []

    def before(module: nn.Module, args: tuple, kwargs: dict) -> None:
        seen[:] = [args[0] if args else kwargs["hidden_states"]]

    def after(module: nn.Module, args: tuple, output: Any) -> Any:
        added = output[0] if isinstance(output, tuple) else output
        mid = seen[0] + added
        edited = edit(mid)
        if edited is mid:
            return output
        added = added + (edited - mid)
        return (added, *output[1:]) if isinstance(output, tuple) else added

    return [
        block.register_forward_pre_hook(before, with_kwargs=True),
        attention.register_forward_hook(after),
    ]


@torch.no_grad()
def read_residuals(
    lm: LanguageModel,
    sites: Sequence[Site],
    ids: torch.Tensor,
    mask: Bool[torch.Tensor, "batch seq"],
    at: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> dict[str, Float[torch.Tensor, "..."]]:
    """Return the raw residual stream at every site from one forward pass, by hook name.

    The pass ends after the last site: no later block, final norm or unembedding is computed.
    Tensors are moved to the model's device; this does not wait for a GPU.

    Args:
        lm: the model.
        sites: where to read.
        ids: tokens, padded on the right.
        mask: True on tokens, False on padding.
        at: rows and columns of n tokens; only they are kept, (n, d_model) for each site. Without
            it the whole stream is returned, (batch, seq, d_model).

    Raises:
        ModelError: if a layer is out of range, or a site has no stream of (batch, seq, d_model).
        ValueError: if rows are padded on the left, which shifts absolute positions.

    """
    if not bool(mask[:, 0].all()):
        raise ValueError("mask: rows must be padded on the right.")
    ids, mask = to_device(ids, lm.device), to_device(mask, lm.device)
    if at is not None:
        at = to_device(at[0], lm.device), to_device(at[1], lm.device)
    read: dict[str, torch.Tensor] = {}
    missing = {site.hook_name for site in sites}
    index = {name: i for i, name in enumerate(missing)}
    blocks: list[torch.Tensor] = []

    def select(name: str, residual: torch.Tensor) -> torch.Tensor:
        """Return the tokens at ``at``, in one block of memory with those of the other sites.

        A tensor for each site would lie among those of the pass and outlive them, and the
        allocator can neither fill such gaps with larger tensors nor give them back.
        """
        kept = residual[at]
        if not blocks:
            blocks.append(kept.new_empty((len(index), *kept.shape)))
        if (kept.dtype, kept.device) != (blocks[0].dtype, blocks[0].device):
            return kept
        return blocks[0][index[name]].copy_(kept)

    def keep(name: str) -> Edit:
        def edit(residual: torch.Tensor) -> torch.Tensor:
            if residual.shape != (*ids.shape, lm.shape.d_model):
                raise ModelError(
                    f"{lm.shape.architecture}: {name} is of shape {tuple(residual.shape)}, not "
                    f"{(*ids.shape, lm.shape.d_model)}: it is no residual stream to read or steer. "
                    "Choose another model."
                )
            read[name] = residual if at is None else select(name, residual)
            missing.discard(name)
            if not missing:
                raise StopForward
            return residual

        return edit

    for site in sites:  # before any hook: a place inside a block is looked for once
        locate(lm, site)
    with ExitStack() as stack:
        for site in sites:
            stack.enter_context(edit_residual(lm, site, keep(site.hook_name)))
        with suppress(StopForward):
            # Without logits_to_keep: with it, Gemma 4 drops positions before its last blocks.
            lm.model(input_ids=ids, attention_mask=mask.long(), use_cache=False)
    if missing:
        raise ModelError(f"no residual stream passed {sorted(missing)}: hooks did not fire.")
    return read


def last_token_residuals(
    lm: LanguageModel,
    texts: Sequence[str],
    site: Site,
    *,
    max_tokens: int,
    batch_tokens: int,
    control_tokens: bool = False,
    chat_template: bool = False,
) -> Float[np.ndarray, "n d_model"]:
    """Return the residual of the last token of each text, as the SAE of the site sees it.

    Args:
        lm: the model.
        texts: n texts.
        site: where to read.
        max_tokens: longer texts are cut, BOS included.
        batch_tokens: tokens of a forward pass, with padding.
        control_tokens: set it for texts that a chat template wrote.
        chat_template: set it for texts to be read as the user's turn of a chat template.

    Returns:
        Residuals in float32, centred if the site is.

    Raises:
        ModelError: if a residual is NaN or infinite.
    """
    rows = tokenize_many(
        lm.tokenizer,
        texts,
        prepend_bos=site.prepend_bos,
        max_tokens=max_tokens,
        control_tokens=control_tokens,
        chat_template=chat_template,
    )
    out = np.empty((len(rows), lm.shape.d_model), dtype=np.float32)
    batches = padded_batches(
        rows,
        lm.tokenizer,
        prepend_bos=site.prepend_bos,
        context=lm.shape.context,
        batch_tokens=batch_tokens,
    )
    for chosen, batch in batches:
        last = torch.arange(len(chosen)), batch.mask.sum(dim=1) - 1
        residuals = read_residuals(lm, [site], batch.ids, batch.mask, last)[site.hook_name]
        out[chosen] = site.view(residuals.float().cpu().numpy())
    if not np.isfinite(out).all():
        raise ModelError(
            f"residuals at {site.hook_name} are NaN or infinite in {dtype_name(lm)}: set "
            "`dtype: bfloat16` or `float32` in the model's section; in float32 the weights are "
            "damaged."
        )
    return out


def check_blocks(lm: LanguageModel) -> None:
    """Make sure, on two tokens, that there is one causal residual stream through all blocks.

    Raises:
        ModelError: if blocks pass on something other than (batch, seq, d_model), a block does not
            read the output of the block before it, a value is NaN or infinite, or a token changes
            the stream at an earlier token.

    """
    ends = [Site(layer, "post", False, False) for layer in range(lm.shape.n_layers)]
    starts = [Site(layer, "pre", False, False) for layer in range(lm.shape.n_layers)]
    ids = torch.tensor([[1, 2]])
    mask = torch.ones_like(ids, dtype=torch.bool)
    read = read_residuals(lm, [*starts, *ends], ids, mask)
    for layer, site in enumerate(ends):
        written = read[site.hook_name]
        if not torch.isfinite(written).all():
            raise ModelError(
                f"{lm.shape.architecture}: block {layer} writes NaN or infinite values: check the "
                "weights, or set `dtype: float32` in the model's section."
            )
        if layer + 1 < lm.shape.n_layers and not torch.equal(
            written, read[starts[layer + 1].hook_name]
        ):
            raise ModelError(
                f"{lm.shape.architecture}: block {layer + 1} does not read what block {layer} "
                "writes, so there is no residual stream to steer between them: choose another "
                "model."
            )
    last = ends[-1].hook_name
    other = read_residuals(lm, [ends[-1]], torch.tensor([[1, 3]]), mask)[last]
    slack = 1e-3 if lm.dtype == torch.float32 else 3e-2  # outputs of experts vary with the batch
    if not torch.allclose(read[last][:, 0], other[:, 0], rtol=slack, atol=slack):
        raise ModelError(
            f"{lm.shape.architecture}: a token changes the stream at an earlier token, so "
            "this is no causal language model: choose another model."
        )


def locate(lm: LanguageModel, site: Site) -> None:
    """Find the place of a site inside its block, if it is one, so that hooks can be set later.

    Raises:
        ModelError: if the block has no such place, or the layer is out of range.
    """
    _block(lm, site)
    if site.stream not in ("pre", "post"):
        module_at(lm, site.layer, site.stream)


def _block(lm: LanguageModel, site: Site) -> nn.Module:
    if not 0 <= site.layer < lm.shape.n_layers:
        raise ModelError(f"layer {site.layer} is out of range: the model has {lm.shape.n_layers}.")
    return lm.blocks[site.layer]


# ---------------------------------------------------------------------------- places inside a block
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
