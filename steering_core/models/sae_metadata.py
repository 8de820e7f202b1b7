"""What ``cfg.json`` of an SAE must say, checked without the libraries that run it.

sae-lens trusts ``cfg.json``: a missing key ends in a traceback, and a key with a default in a wrong
number. Here every fault of a file is found at once and named with the value to write. This module
imports no model library, since a start of the workflow checks the SAEs of local directories.
"""

import json
from importlib.metadata import version
from typing import Any, Literal

from packaging.version import InvalidVersion, Version
from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError

from steering_core.errors import ModelError, clipped
from steering_core.models.site import site_of

#: Architectures whose features are non-negative lengths along decoder rows of the same stream.
RUNS = ("standard", "gated", "jumprelu", "topk", "matching_pursuit")

#: Names of dtypes that sae-lens knows.
DTYPES = tuple(
    prefix + name
    for prefix in ("", "torch.")
    for name in ("float32", "float64", "float16", "bfloat16")
)

_WRITES_ELSEWHERE = (
    "its decoder writes to another place than its encoder reads, so its rows are no directions of "
    "the residual stream at the site"
)
_TRAINING_ONLY = (
    "it is a training checkpoint, which chooses features over a whole batch: load it in sae-lens "
    "and write it with save_inference_model, which makes a JumpReLU SAE"
)
#: Other architectures of sae-lens, and why they are refused.
REFUSED = {
    "abstopk": "its features may be negative, and the statistics, coefficients and programs here "
    "take an activation for a length",
    "temporal": "its features depend on the earlier positions of the text, not on one residual",
    "transcoder": _WRITES_ELSEWHERE,
    "skip_transcoder": _WRITES_ELSEWHERE,
    "jumprelu_transcoder": _WRITES_ELSEWHERE,
    "jumprelu_skip_transcoder": _WRITES_ELSEWHERE,
    "batchtopk": _TRAINING_ONLY,
    "matryoshka_batchtopk": _TRAINING_ONLY,
}

#: Normalisations whose scale is known exactly for each token, from its residual alone.
BY_TOKEN = ("layer_norm", "constant_norm_rescale")

#: What sae-lens 6 keeps under ``metadata``.
_IN_METADATA = (
    "hook_name",
    "hook_name_out",
    "prepend_bos",
    "model_from_pretrained_kwargs",
    "neuronpedia_id",
    "sae_lens_version",
)
#: Keys that must be there, each with what to write.
_WRITE = {
    "architecture": "one of " + ", ".join(f'"{name}"' for name in RUNS),
    "d_in": "width of the residual stream",
    "d_sae": "number of features: rows of W_dec",
    "dtype": '"float32", "float16", "bfloat16" or "float64"',
    "k": "how many features are active at a position",
    "hook_name": '"blocks.L.hook_resid_pre" or "blocks.L.hook_resid_post" with L the layer',
    "prepend_bos": "true if the SAE was trained on texts that begin with BOS, else false",
    "sae_lens_version": f'"{version("sae-lens")}"',
}
_RENAMED = {"hook_point": "hook_name", "activation_fn_str": "activation_fn"}


class _Types(BaseModel):
    """Types of the keys that this package or sae-lens reads."""

    model_config = ConfigDict(strict=True, extra="ignore")

    architecture: str | None = None
    d_in: PositiveInt | None = None
    d_sae: PositiveInt | None = None
    dtype: Literal[DTYPES] | None = None
    k: PositiveInt | None = None
    hook_name: str | None = None
    hook_name_out: str | None = None
    prepend_bos: bool | None = None
    normalize_activations: str = "none"
    reshape_activations: str = "none"
    apply_b_dec_to_input: bool = True
    rescale_acts_by_decoder_norm: bool = False
    model_from_pretrained_kwargs: dict[str, Any] | None = None
    neuronpedia_id: str | None = None
    residual_threshold: float = 0.0
    max_iterations: PositiveInt | None = None
    stop_on_duplicate_support: bool = True
    activation_fn: Literal["relu", "topk"] | None = None
    activation_fn_kwargs: dict[str, Any] | None = None


def check_metadata(raw: Any, file: str, *, needs_dtype: bool = True) -> dict[str, Any]:
    """Check the content of ``cfg.json``; return its keys in one flat mapping with today's names.

    Args:
        raw: the content of ``cfg.json``, of any version of sae-lens.
        file: its name, for messages.
        needs_dtype: whether it has to name a dtype.

    Raises:
        ModelError: if it is malformed, with all faults at once, or of an architecture that cannot
            be steered with.
    """
    if not isinstance(raw, dict):
        raise ModelError(f"{file} must hold a JSON object of settings, not {_shown(raw)}.")
    faults = []
    metadata = raw.get("metadata", {})
    if not isinstance(metadata, dict):
        faults.append(f"metadata must be an object, not {_shown(metadata)}")
        metadata = {}
    written = raw.get("sae_lens_version") or metadata.get("sae_lens_version")
    # Without a version sae-lens takes a file for an old one and does not look into `metadata`.
    if not written and "metadata" not in raw:
        old = True
    else:
        try:
            old = bool(written) and Version(written) < Version("6.0.0-rc.0")
        except (InvalidVersion, TypeError):
            faults.append(f"sae_lens_version is {_shown(written)}, which is no version")
            old = False
    if old:
        flat = _flat_old(raw)
    else:
        outside = {key: value for key, value in raw.items() if key not in _IN_METADATA}
        inside = {key: metadata[key] for key in _IN_METADATA if key in metadata}
        flat = {**outside, **inside, "sae_lens_version": written}
    check_architecture(flat.get("architecture"), file)
    optional = {"sae_lens_version"} if old else set()
    optional |= set() if needs_dtype else {"dtype"}
    optional |= set() if flat.get("architecture") == "topk" else {"k"}  # sae-lens would take 100
    missing = [key for key in _WRITE if flat.get(key) is None and key not in optional]
    faults = [f"no {key}" for key in missing] + faults + _wrong_types(flat)
    if faults:
        raise ModelError(f"{file}: {'; '.join(faults)}.{_advice(missing, nested=not old)}")
    if flat.get("k") is not None and flat["k"] > flat["d_sae"]:
        raise ModelError(f"{file}: k is {flat['k']}, but there are {flat['d_sae']} features.")
    return flat


def check_architecture(architecture: Any, name: str) -> None:
    """Refuse an architecture that cannot be steered with; one that is absent is not one.

    Raises:
        ModelError: with the reason.
    """
    if not isinstance(architecture, str) or architecture in RUNS:
        return
    reason = REFUSED.get(architecture, "it is not an architecture that was tried here")
    raise ModelError(
        f"{name} is of architecture {clipped(architecture)}, which cannot be used: {reason}. "
        f"Choose an SAE of one of {', '.join(RUNS)}."
    )


def check_kind(config: dict[str, Any], name: str) -> None:
    """Refuse an SAE that cannot be steered with, by its configuration in the form of sae-lens 6.

    Raises:
        ModelError: if its architecture, its input or its place do not allow it, with the reason.
    """
    check_architecture(config["architecture"], name)
    normalised = config.get("normalize_activations") or "none"
    if normalised not in ("none", *BY_TOKEN):
        raise ModelError(
            f"{name} rescales its input ({normalised}), and the factor is not folded into its "
            "weights: a coefficient has no fixed length in the residual stream. "
            "Choose an SAE without that, or fold the factor."
        )
    reshaped = config.get("reshape_activations") or "none"
    if reshaped != "none":
        raise ModelError(
            f"{name} reshapes its input ({reshaped}), as SAEs of attention heads do: choose an SAE "
            "of the residual stream."
        )
    metadata = config["metadata"]
    site_of(metadata, name)
    written = metadata.get("hook_name_out")
    if written is not None and written != metadata["hook_name"]:
        raise ModelError(
            f"{name} reads {metadata['hook_name']} and writes {written}: {_WRITES_ELSEWHERE}. "
            "Choose an SAE that writes where it reads."
        )


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:80]}…"


def _flat_old(raw: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration of before version 6 with the defaults that sae-lens gives it."""
    flat = {_RENAMED.get(key, key): value for key, value in raw.items()}
    flat = {"architecture": "standard", "prepend_bos": True, **flat}
    if flat.get("normalize_activations") is None or flat["normalize_activations"] is False:
        flat["normalize_activations"] = "none"
    elif flat["normalize_activations"] is True:
        flat["normalize_activations"] = "expected_average_only_in"
    if flat.get("activation_fn") == "topk":
        options = flat.get("activation_fn_kwargs")
        flat["architecture"] = "topk"
        flat["k"] = options.get("k") if isinstance(options, dict) else None
    return flat


def _wrong_types(flat: dict[str, Any]) -> list[str]:
    # Null counts as missing where a value is required, so it is reported once.
    present = {key: value for key, value in flat.items() if value is not None or key not in _WRITE}
    try:
        _Types.model_validate(present)
    except ValidationError as error:
        # A union has an error for each member: the first is of the type meant.
        said: dict[str, str] = {}
        for fault in error.errors():
            said.setdefault(str(fault["loc"][0]), fault["msg"])
        return [
            f"{key} is {_shown(flat[key])}: {text[:1].lower()}{text[1:]}"
            for key, text in said.items()
        ]
    return []


def _advice(missing: list[str], *, nested: bool) -> str:
    if not missing:
        return ""
    inside = [key for key in missing if nested and key in _IN_METADATA]
    parts = [f'"{key}": {_WRITE[key]}' for key in missing if key not in inside]
    if inside:
        listed = "; ".join(f'"{key}": {_WRITE[key]}' for key in inside)
        parts.append(f'and under "metadata": {listed}')
    return f" Write into cfg.json the values that the SAE was trained with: {'; '.join(parts)}."
