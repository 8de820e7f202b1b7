"""Where in the model an SAE reads and writes: everything comes from the SAE's own metadata."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from steering_core.errors import ModelError

_HOOK = re.compile(r"blocks\.(\d+)\.hook_(?:resid_(pre|post|mid)|(attn_out|mlp_out))")
#: Names of modules of transformers: a block, its attention or its MLP, of which the output is read.
_MODULE = re.compile(
    r"(?:[a-z_]+\.)*(?:layers|h|blocks)\.(\d+)"
    r"(?:\.(?:(self_attn|attn|attention|self_attention)|(mlp|feed_forward)))?"
)
Stream = Literal["pre", "post", "mid", "attn_out", "mlp_out", "attn", "mlp"]


@dataclass(frozen=True)
class Site:
    """A point of the residual stream, or what a part of a block adds to it.

    Attributes:
        layer: index of the transformer block.
        stream: ``pre`` is the input of the block, ``post`` its output, ``mid`` the stream between
            attention and MLP. ``attn_out`` and ``mlp_out`` are what these two add to the stream.
            ``attn`` and ``mlp`` are the outputs of the modules, before a norm that may follow.
        centred: the SAE was trained on a stream with centred writing weights, so the raw stream
            must have its mean over d_model removed before the SAE or a probe sees it.
        prepend_bos: the SAE was trained on sequences that begin with BOS.

    """

    layer: int
    stream: Stream
    centred: bool
    prepend_bos: bool

    @property
    def hook_name(self) -> str:
        """The TransformerLens name of the site; of a module, a name in its style."""
        part = "hook_resid_" if self.stream in ("pre", "post", "mid") else "hook_"
        part = "" if self.stream in ("attn", "mlp") else part
        return f"blocks.{self.layer}.{part}{self.stream}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a manifest."""
        return asdict(self)

    def view(self, residual: Float[np.ndarray, "*n d_model"]) -> Float[np.ndarray, "*n d_model"]:
        """Return the raw residual stream as the SAE sees it (centred where the site is)."""
        if not self.centred:
            return residual
        return residual - residual.mean(-1, keepdims=True)


def site_at(sae: Mapping[str, Any]) -> Site:
    """Return the site of an SAE as the fetch stage described it, or of a picked layer."""
    return Site(**{field: sae[field] for field in ("layer", "stream", "centred", "prepend_bos")})


def site_of(metadata: Any, what: str) -> Site:
    """Read the site from an SAE's metadata (``sae.cfg.metadata``).

    Raises:
        ModelError: if the hook point is absent, or is no place that writes to the residual stream.

    """
    for key in ("hook_name", "prepend_bos"):
        if key not in metadata or metadata[key] is None:
            raise ModelError(f"{what}: its metadata has no {key}, so its site is unknown.")
    layer, stream = _place(metadata["hook_name"], what)
    kwargs = (
        metadata["model_from_pretrained_kwargs"]
        if "model_from_pretrained_kwargs" in metadata
        else None
    )
    kwargs = kwargs or {}
    unknown = set(kwargs) - {"center_writing_weights", "n_devices", "device"}
    if unknown:
        raise ModelError(
            f"{what} was trained on a model loaded with {sorted(unknown)}, which is not supported."
        )
    return Site(
        layer=layer,
        stream=stream,
        centred=bool(kwargs.get("center_writing_weights", False)),
        prepend_bos=bool(metadata["prepend_bos"]),
    )


def _place(hook_name: str, what: str) -> tuple[int, Stream]:
    if match := _HOOK.fullmatch(hook_name):
        return int(match[1]), match[2] or match[3]
    if match := _MODULE.fullmatch(hook_name):
        return int(match[1]), "attn" if match[2] else "mlp" if match[3] else "post"
    raise ModelError(
        f"{what} sits at {hook_name}; only residual streams (blocks.L.hook_resid_pre, _mid or "
        "_post), what attention or MLP adds to them (hook_attn_out, hook_mlp_out), and blocks, "
        "attention and MLP by the names of transformers (model.layers.L, … .mlp) can be steered "
        "here: choose another SAE."
    )
