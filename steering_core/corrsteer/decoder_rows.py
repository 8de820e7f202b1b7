"""Decoder rows of a model's SAEs, layer by layer."""

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from steering_core.config.model import Model
from steering_core.corrsteer.plan import Rows
from steering_core.models.pins import pinned_sae
from steering_core.models.sparse_autoencoder import load_sae


def decoder_rows(model: Model, resources: dict[str, Any]) -> Rows:
    """Return what gives the unit decoder rows of some features of a layer, (m, d_model).

    Args:
        model: whose SAEs.
        resources: what was fetched.

    Raises:
        ModelError: if an SAE is not what was fetched, or cannot be loaded.
    """
    source = pinned_sae(model, resources)

    def rows(layer: int, features: Int[np.ndarray, " m"]) -> Float[np.ndarray, "m d_model"]:
        return load_sae(source, layer).decoder[features]

    return rows
