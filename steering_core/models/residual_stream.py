"""Read and write the residual stream through hooks that are always removed."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import nn

from steering_core.errors import ModelError
from steering_core.models.devices import to_device
from steering_core.models.language_model import LanguageModel
from steering_core.models.site import Site

#: Maps the raw residual stream (batch, seq, d_model) at a site to what replaces it.
Edit = Callable[
    [Float[torch.Tensor, "batch seq d_model"]], Float[torch.Tensor, "batch seq d_model"]
]


class _Stop(Exception):  # noqa: N818 - control flow, never seen outside
    """Ends a forward pass once the last site has been read."""


@contextmanager
def edit_residual(lm: LanguageModel, site: Site, edit: Edit) -> Iterator[None]:
    """Apply ``edit`` at ``site`` on every forward pass inside the block.

    Raises:
        ModelError: if the layer is out of range.

    """
    block = _block(lm, site)
    if site.stream == "pre":

        def before(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
            if args:
                return (edit(args[0]), *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": edit(kwargs["hidden_states"])}

        handle = block.register_forward_pre_hook(before, with_kwargs=True)
    else:

        def after(module: nn.Module, args: tuple, output: Any) -> Any:
            if isinstance(output, tuple):
                return (edit(output[0]), *output[1:])
            return edit(output)

        handle = block.register_forward_hook(after)
    try:
        yield
    finally:
        handle.remove()


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
    What is returned is (batch, seq, d_model); with ``at``, rows and columns of n tokens, it is
    (n, d_model) and nothing else is kept while the pass goes on. Tensors are moved to the model's
    device; given on the CPU, nothing here waits for the device.

    Raises:
        ModelError: if a layer is out of range.
        ValueError: if rows are padded on the left, which shifts absolute positions.

    """
    if not bool(mask[:, 0].all()):
        raise ValueError("mask: rows must be padded on the right.")
    ids, mask = to_device(ids, lm.device), to_device(mask, lm.device)
    if at is not None:
        at = to_device(at[0], lm.device), to_device(at[1], lm.device)
    read: dict[str, torch.Tensor] = {}
    missing = {site.hook_name for site in sites}

    def keep(name: str) -> Edit:
        def edit(residual: torch.Tensor) -> torch.Tensor:
            read[name] = residual if at is None else residual[at]
            missing.discard(name)
            if not missing:
                raise _Stop
            return residual

        return edit

    with ExitStack() as stack:
        for site in sites:
            stack.enter_context(edit_residual(lm, site, keep(site.hook_name)))
        try:
            lm.model(input_ids=ids, attention_mask=mask.long(), use_cache=False, logits_to_keep=1)
        except _Stop:
            pass
    if missing:
        raise ModelError(f"no residual stream passed {sorted(missing)}: hooks did not fire.")
    return read


def check_blocks(lm: LanguageModel) -> None:
    """Make sure that every block reads what the one before it wrote, on two tokens.

    Raises:
        ModelError: if one does not: then no vector added there would be what is steered with. Or
            if it is NaN or infinite.

    """
    layers = range(lm.shape.n_layers - 1)
    sites = {
        layer: (Site(layer, "post", False, False), Site(layer + 1, "pre", False, False))
        for layer in layers
    }
    ids = torch.tensor([[1, 2]])
    every = [site for pair in sites.values() for site in pair]
    read = read_residuals(lm, every, ids, torch.ones_like(ids, dtype=torch.bool)) if every else {}
    for layer, (written, taken) in sites.items():
        if not torch.isfinite(read[written.hook_name]).all():
            raise ModelError(
                f"{lm.shape.architecture}: block {layer} writes NaN or infinite values: check the "
                "weights, or set `dtype: float32` in the model's section."
            )
        if not torch.equal(read[written.hook_name], read[taken.hook_name]):
            raise ModelError(
                f"{lm.shape.architecture}: block {layer + 1} does not read what block {layer} "
                "writes, so there is no residual stream to steer between them: choose another "
                "model."
            )


def _block(lm: LanguageModel, site: Site) -> nn.Module:
    if not 0 <= site.layer < lm.shape.n_layers:
        raise ModelError(f"layer {site.layer} is out of range: the model has {lm.shape.n_layers}.")
    return lm.blocks[site.layer]
