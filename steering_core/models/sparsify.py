"""SAEs in sparsify's layout (EleutherAI), read as TopK SAEs of sae-lens.

Each hookpoint has a folder of its name, such as ``layers.14`` or ``layers.14.mlp``, which holds
``cfg.json`` and ``sae.safetensors``. sparsify computes the k largest of relu(W_enc (x − b_dec) +
b_enc), and the reconstruction is their sum of decoder rows plus b_dec (``SparseCoder`` there).
"""

from pathlib import Path, PurePosixPath
from typing import Any

import sae_lens
import torch
from sae_lens import SAE
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from steering_core.errors import ModelError

#: The file of weights, and what marks a configuration that this module made.
WEIGHTS, FORMAT = "sae.safetensors", "sparsify"


def is_sparsify(raw: Any) -> bool:
    """Whether ``cfg.json`` holds a configuration of sparsify: sae-lens has other keys."""
    return isinstance(raw, dict) and "num_latents" in raw and "architecture" not in raw


def made_by_sparsify(config: dict[str, Any]) -> bool:
    """Whether a configuration in the form of sae-lens was made by :func:`as_sae_lens`."""
    return config["metadata"].get("source_format") == FORMAT


def as_sae_lens(raw: dict[str, Any], folder: str, name: str) -> dict[str, Any]:
    """Return a configuration of sparsify in the form of sae-lens 6.

    Args:
        raw: the content of ``cfg.json``.
        folder: whose name is the hookpoint.
        name: of the SAE, for messages.

    Raises:
        ModelError: if it lacks a size, or is no SAE with TopK of one place.
    """
    for key in ("transcode", "skip_connection"):
        if raw.get(key):
            raise ModelError(
                f"{name}: {key} is set in cfg.json, so its decoder writes to another place than "
                "its encoder reads: choose an SAE that writes where it reads."
            )
    activation = raw.get("activation", "topk")
    if activation != "topk":
        raise ModelError(
            f"{name}: its activation is {activation!r}. Of sparsify's SAEs only those with topk "
            "are read here: choose one of these."
        )
    missing = [key for key in ("d_in", "k") if not _size(raw.get(key))]
    if not _size(raw.get("num_latents") or raw.get("expansion_factor")):
        missing.append("num_latents")
    if missing:
        raise ModelError(f"{name}: cfg.json of sparsify has no {' and no '.join(missing)}.")
    return {
        "architecture": "topk",
        "d_in": raw["d_in"],
        "d_sae": raw.get("num_latents") or raw["d_in"] * raw["expansion_factor"],
        "k": raw["k"],
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "rescale_acts_by_decoder_norm": False,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {
            "hook_name": PurePosixPath(folder).name,
            # sparsify trains on whole chunks of joined texts, without a token in front.
            "prepend_bos": False,
            "source_format": FORMAT,
            "sae_lens_version": sae_lens.__version__,
        },
    }


def check_sparsify_weights(file: Path, config: dict[str, Any], name: str) -> None:
    """Compare the header of ``sae.safetensors`` with the configuration.

    Raises:
        ModelError: if the file is missing or damaged, or its tensors are others.
    """
    shapes = {
        "encoder.weight": [config["d_sae"], config["d_in"]],
        "encoder.bias": [config["d_sae"]],
        "W_dec": [config["d_sae"], config["d_in"]],
        "b_dec": [config["d_in"]],
    }
    try:
        with safe_open(file, framework="pt") as opened:
            found = {key: opened.get_slice(key).get_shape() for key in opened.keys()}
    except FileNotFoundError as error:
        raise ModelError(f"{name}: there is no {WEIGHTS} beside cfg.json.") from error
    except SafetensorError as error:
        raise ModelError(f"{file} is damaged: {error}") from error
    if found != shapes:
        raise ModelError(
            f"{name}: {WEIGHTS} holds {found}, and by cfg.json it should hold {shapes}: they do "
            "not belong together."
        )


def load_sparsify(
    file: Path, config: dict[str, Any], name: str, device: torch.device | str = "cpu"
) -> SAE:
    """Return the SAE as a TopK SAE of sae-lens, in float32.

    Args:
        file: ``sae.safetensors``.
        config: by :func:`as_sae_lens`.
        name: of the SAE, for messages.
        device: where to put it.

    Raises:
        ModelError: as :func:`check_sparsify_weights`.
    """
    check_sparsify_weights(file, config, name)
    found = {key: tensor.float() for key, tensor in load_file(file).items()}
    sae = SAE.from_dict(config)
    sae.load_state_dict(
        {
            "W_enc": found["encoder.weight"].T.contiguous(),
            "b_enc": found["encoder.bias"],
            "W_dec": found["W_dec"],
            "b_dec": found["b_dec"],
        }
    )
    return sae.to(device=str(device))


def _size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
