"""Where in the model an SAE reads and writes: everything comes from the SAE's own metadata."""

import re
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from steering_core.errors import ModelError

_HOOK = re.compile(r"blocks\.(\d+)\.hook_resid_(pre|post)")


@dataclass(frozen=True)
class Site:
    """A point of the residual stream.

    Attributes:
        layer: index of the transformer block.
        stream: ``pre`` is the input of the block, ``post`` its output.
        centred: the SAE was trained on a stream with centred writing weights, so the raw stream
            must have its mean over d_model removed before the SAE or a probe sees it.
        prepend_bos: the SAE was trained on sequences that begin with BOS.

    """

    layer: int
    stream: Literal["pre", "post"]
    centred: bool
    prepend_bos: bool

    @property
    def hook_name(self) -> str:
        """The TransformerLens name of the site."""
        return f"blocks.{self.layer}.hook_resid_{self.stream}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a manifest."""
        return asdict(self)

    def view(self, residual: Float[np.ndarray, "*n d_model"]) -> Float[np.ndarray, "*n d_model"]:
        """Return the raw residual stream as the SAE sees it (centred where the site is)."""
        if not self.centred:
            return residual
        return residual - residual.mean(-1, keepdims=True)


def site_of(metadata: Any, what: str) -> Site:
    """Read the site from an SAE's metadata (``sae.cfg.metadata``).

    Raises:
        ModelError: if the hook point is absent or is not a residual stream.

    """
    for key in ("hook_name", "prepend_bos"):
        if key not in metadata or metadata[key] is None:
            raise ModelError(f"{what}: its metadata has no {key}, so its site is unknown.")
    match = _HOOK.fullmatch(metadata["hook_name"])
    if match is None:
        raise ModelError(
            f"{what} sits at {metadata['hook_name']}; only residual streams "
            "(blocks.L.hook_resid_pre or _post) can be steered here: choose another SAE."
        )
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
        layer=int(match[1]),
        stream=match[2],
        centred=bool(kwargs.get("center_writing_weights", False)),
        prepend_bos=bool(metadata["prepend_bos"]),
    )
