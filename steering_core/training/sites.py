"""The layers and sites that SAEs are trained for.

The fetch stage pins the model and the texts alone. Layers are added here, by the stage that caches
activations and by the job of a layer, so that one more layer does not train the others again.
"""

from collections.abc import Iterable
from typing import Any

from steering_core.errors import ConfigError
from steering_core.models.site import Site


def check_layers(layers: Iterable[int], n_layers: int, model_id: str) -> None:
    """Check that the model has the layers.

    Raises:
        ConfigError: naming the first that it has not.
    """
    missing = sorted(layer for layer in layers if layer >= n_layers)
    if missing:
        raise ConfigError(
            f"sae.train.layers: {missing[0]} is out of range, {model_id} has {n_layers} "
            f"layers (0 to {n_layers - 1})."
        )


def with_sites(resources: dict[str, Any], layers: Iterable[int]) -> dict[str, Any]:
    """Return what the fetch stage found, with ``layers`` and ``saes`` as other stages read them.

    An SAE is trained at the output of the block.

    Args:
        resources: of :func:`steering_core.training.texts.describe_training`.
        layers: to train SAEs for.

    Raises:
        ConfigError: as :func:`check_layers`.
    """
    ordered = sorted(layers)
    check_layers(ordered, resources["shape"]["n_layers"], resources["model"]["id"])
    sites = [Site(layer, "post", False, resources["prepend_bos"]) for layer in ordered]
    saes = [{"hook_name": site.hook_name, **site.to_dict()} for site in sites]
    return {**resources, "layers": ordered, "saes": saes}
