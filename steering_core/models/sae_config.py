"""The configuration and weights of an SAE in the form of sae-lens, checked before they are loaded.

SAEs that cannot be steered with are refused with the reason
(:mod:`steering_core.models.sae_metadata`).
"""

from pathlib import Path
from typing import Any

import torch
from sae_lens import SAE
from sae_lens.loading.pretrained_sae_loaders import handle_config_defaulting
from safetensors import SafetensorError, safe_open

from steering_core.errors import ModelError
from steering_core.models.sae_metadata import check_metadata


def parse_config(raw: Any, file: str, *, needs_dtype: bool = True) -> dict[str, Any]:
    """Return a configuration in the form of sae-lens 6, having checked it.

    Args:
        raw: the content of ``cfg.json``, of any version of sae-lens.
        file: its name, for messages.
        needs_dtype: whether it has to name a dtype.

    Raises:
        ModelError: as :func:`steering_core.models.sae_metadata.check_metadata`.
    """
    check_metadata(raw, file, needs_dtype=needs_dtype)
    return handle_config_defaulting(raw)


def check_weights(file: Path, config: dict[str, Any], name: str) -> None:
    """Compare the names and shapes in a safetensors header with what the configuration implies.

    Args:
        file: ``sae_weights.safetensors``, of which only the header is read.
        config: in the form of sae-lens 6.
        name: of the SAE, for messages.

    Raises:
        ModelError: if the file is missing or damaged, or its tensors are others.
    """
    try:
        with safe_open(file, framework="pt") as weights:
            found = {
                key: torch.empty(weights.get_slice(key).get_shape(), device="meta")
                for key in weights.keys()
            }
            # sae-lens before 4 wrote a scale that was never trained, and drops it where it is 1.
            scale = weights.get_tensor("scaling_factor") if "scaling_factor" in found else None
    except (FileNotFoundError, SafetensorError) as error:
        raise ModelError(f"{name}: the SAE's weights are missing or damaged: {error}") from error
    if scale is not None and not torch.allclose(scale, torch.ones_like(scale)):
        raise ModelError(
            f"{name}: its features have a scaling_factor of their own, which sae-lens no longer "
            "applies: multiply it into W_dec and leave it out."
        )
    found.pop("scaling_factor", None)
    sae = SAE.from_dict({**config, "dtype": "float32", "device": "meta"})
    sae.process_state_dict_for_loading(found)
    expected = sae.state_dict()
    faults = [f"there is no {key}" for key in expected if key not in found]
    faults += [f"{key} is not expected" for key in found if key not in expected]
    faults += [
        f"{key} is {tuple(found[key].shape)} and not {tuple(tensor.shape)}"
        for key, tensor in expected.items()
        if key in found and found[key].shape != tensor.shape
    ]
    if faults:
        raise ModelError(
            f"{name}: the weights are not those of cfg.json, a {config['architecture']} SAE with "
            f"d_in {config['d_in']} and d_sae {config['d_sae']}: {'; '.join(faults)}. Correct "
            "cfg.json, or use the weights that belong to it."
        )
