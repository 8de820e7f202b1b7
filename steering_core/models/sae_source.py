"""Where the SAEs of a model come from, what their configurations say, and which were fetched.

A new source of SAEs is added here: how its configuration and its weights are found. Both are
checked before they are loaded. :mod:`steering_core.models.sae_metadata` says which SAEs can be used
for steering; it needs no library of SAEs.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from glob import escape, glob
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HFValidationError,
    LocalEntryNotFoundError,
)
from sae_lens import SAE
from sae_lens.constants import SAE_CFG_FILENAME, SAE_WEIGHTS_FILENAME
from sae_lens.loading.pretrained_sae_loaders import (
    NAMED_PRETRAINED_SAE_CONFIG_GETTERS,
    get_conversion_loader_name,
    handle_config_defaulting,
)
from sae_lens.loading.pretrained_saes_directory import (
    get_config_overrides,
    get_norm_scaling_factor,
    get_pretrained_saes_directory,
    get_repo_id_and_folder_name,
)
from safetensors import SafetensorError, safe_open

from steering_core.config.model import Model, SAESource
from steering_core.errors import ConfigError, ModelError
from steering_core.hub.errors import explain_hub_errors
from steering_core.hub.revisions import cached_commit
from steering_core.models.resources import changed
from steering_core.models.sae_metadata import check_kind, check_metadata
from steering_core.models.site import Site, site_of
from steering_core.models.sparsify import (
    WEIGHTS,
    as_sae_lens,
    check_sparsify_weights,
    is_sparsify,
    made_by_sparsify,
)
from steering_core.storage.integrity import content_digest

#: Files by which other libraries' SAEs are known, and what wrote them.
_OTHER_FORMATS = {
    "ae.pt": "dictionary_learning",  # known by its name: never pickle
    "*.npz": "Gemma Scope",
    "params.safetensors": "Gemma Scope 2",
    "sae.safetensors": "sparsify",
    "*.sae.pt": "Qwen Scope",  # likewise: never pickle
    "hyperparams.json": "Llama Scope",
}


@dataclass(frozen=True)
class SAEShape:
    """Site and sizes of an SAE."""

    name: str
    site: Site
    d_in: int
    d_sae: int
    neuronpedia_id: str | None
    model_name: str | None = None


def sae_name(source: SAESource, layer: int) -> str:
    """Return the SAE's release and id, or its path, for ``layer``."""
    if source.path is not None:
        return source.path.format(layer=layer)
    return f"{source.release}/{sae_id(source, layer)}"


def sae_id(source: SAESource, layer: int) -> str:
    """Return the SAE's id in its release, for ``layer``; with its own number in place of ``{l0}``.

    Raises:
        ConfigError: if ``l0`` has no number for the layer.
    """
    template = str(source.id)
    if source.l0 is None:
        return template.format(layer=layer)
    if isinstance(source.l0, list):
        if layer >= len(source.l0):
            raise ConfigError(
                f"sae.l0 has {len(source.l0)} numbers, none for layer {layer}: give one for each "
                "layer from 0 on."
            )
        return template.format(layer=layer, l0=source.l0[layer])
    before, _, after = template.partition("{l0}")
    pattern = (
        re.escape(before.format(layer=layer)) + r"(\d+)" + re.escape(after.format(layer=layer))
    )
    known = get_pretrained_saes_directory().get(str(source.release))
    found = [re.fullmatch(pattern, name) for name in (known.saes_map if known else ())]
    numbers = [int(match[1]) for match in found if match]
    if not numbers:
        raise ConfigError(
            f"sae.id: {source.release} has no {template.format(layer=layer, l0='…')!r}: check the "
            "id, or list the numbers in `l0`."
        )
    nearest = min(numbers, key=lambda number: (abs(number - source.l0), number))
    return template.format(layer=layer, l0=nearest)


def layers_with_sae(source: SAESource, n_layers: int) -> list[int]:
    """Return the layers below ``n_layers`` for which the source has an SAE."""
    if source.path is not None:
        return [
            layer
            for layer in range(n_layers)
            if (Path(source.path.format(layer=layer)) / "cfg.json").is_file()
        ]
    directory = get_pretrained_saes_directory()
    if source.release not in directory:
        # A hub repository in sae-lens' own format: what it holds is known only on loading.
        return list(range(n_layers))
    known = directory[source.release].saes_map
    return [layer for layer in range(n_layers) if _id_or_none(source, layer) in known]


def _id_or_none(source: SAESource, layer: int) -> str | None:
    try:
        return sae_id(source, layer)
    except ConfigError:  # no number for this layer
        return None


def load_sae_shape(source: SAESource, layer: int) -> SAEShape:
    """Read the configuration of the SAE of ``layer``, not its weights.

    Raises:
        ConfigError: if there is no such SAE.
        ModelError: if its configuration is malformed or does not fit its weights, where they are
            local, or if it cannot be steered with.

    """
    name = sae_name(source, layer)
    config = load_sae_config(source, layer)
    if source.path is not None:
        file = sae_weights_file(source, layer, config)
        check = check_sparsify_weights if made_by_sparsify(config) else check_weights
        check(file, config, name)
    metadata = config["metadata"]
    return SAEShape(
        name,
        site_of(metadata, name),
        int(config["d_in"]),
        int(config["d_sae"]),
        metadata.get("neuronpedia_id"),
        metadata.get("model_name"),
    )


def load_sae_config(source: SAESource, layer: int) -> dict[str, Any]:
    """Return the checked configuration of the SAE of ``layer`` in the form of sae-lens 6.

    Raises:
        ConfigError, ModelError: as :func:`load_sae_shape`.

    """
    name = sae_name(source, layer)
    if source.path is not None:
        file = Path(name) / SAE_CFG_FILENAME
        if not file.is_file():
            raise no_such_sae(source, layer)
        raw = _read_json(file, f"sae.path: {file}")
        if is_sparsify(raw):
            raw = as_sae_lens(raw, name, name)
        config = parse_config(raw, str(file))
        check_kind(config, name)
        return config
    _require_known(source, layer)
    release, known_as = str(source.release), sae_id(source, layer)
    file = f"{name}/{SAE_CFG_FILENAME}"
    overrides = get_config_overrides(release, known_as)
    with explain_hub_errors(release):
        if is_sae_lens_format(source):
            raw = _read_json(_hub_file(source, layer, SAE_CFG_FILENAME), file)
            raw = {**raw, **overrides} if isinstance(raw, dict) else raw
            if is_sparsify(raw):
                raw = as_sae_lens(raw, known_as, name)
        else:
            raw = _convert_config(source, layer, overrides)
    # On loading from the hub, sae-lens makes the weights float32 whatever they were.
    config = parse_config(raw, file, needs_dtype=False)
    config.setdefault("dtype", "float32")
    if get_norm_scaling_factor(release, known_as) is not None:
        averaged = config["normalize_activations"] == "expected_average_only_in"
        config = {**config, "normalize_activations": "none"} if averaged else config
    check_kind(config, name)
    return config


def is_sae_lens_format(source: SAESource) -> bool:
    """Whether the hub repository of a release holds sae-lens' own files."""
    return get_conversion_loader_name(str(source.release)) == "sae_lens"


def sae_weights_file(source: SAESource, layer: int, config: dict[str, Any]) -> Path:
    """Return the weights of a local SAE, or of one on the hub with a ``cfg.json`` (downloaded).

    Args:
        source: of the SAEs.
        layer: whose SAE is wanted.
        config: of the SAE, by :func:`load_sae_config`.
    """
    file = WEIGHTS if made_by_sparsify(config) else SAE_WEIGHTS_FILENAME
    if source.path is not None:
        return Path(sae_name(source, layer)) / file
    return _hub_file(source, layer, file)


def _hub_file(source: SAESource, layer: int, name: str) -> Path:
    repository, folder = get_repo_id_and_folder_name(str(source.release), sae_id(source, layer))
    try:
        return Path(hf_hub_download(repository, f"{folder}/{name}"))
    except LocalEntryNotFoundError:  # no network
        raise
    except EntryNotFoundError as error:
        raise ConfigError(
            f"sae.id: {repository} on the hub has no {folder}/{name}: check the id. Only the "
            "format of sae-lens is read: docs/models.md says how to convert an SAE."
        ) from error


def _read_json(file: Path, what: str) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{what} is not JSON: {error}") from error


def _convert_config(source: SAESource, layer: int, overrides: dict[str, Any]) -> dict[str, Any]:
    """Return what sae-lens makes of the configuration of a release in another format."""
    release, known_as = str(source.release), sae_id(source, layer)
    repository, folder = get_repo_id_and_folder_name(release, known_as)
    getter = NAMED_PRETRAINED_SAE_CONFIG_GETTERS[get_conversion_loader_name(release)]
    try:
        return getter(repository, folder, "cpu", False, overrides)
    except HFValidationError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"{release}/{known_as}: sae-lens cannot read this SAE's configuration: "
            f"{type(error).__name__}: {error}"
        ) from error


def sae_repository(source: SAESource, layer: int) -> str | None:
    """Return the hub repository that holds the SAE of ``layer``; None for a local one."""
    if source.path is not None:
        return None
    return get_repo_id_and_folder_name(str(source.release), sae_id(source, layer))[0]


def _require_known(source: SAESource, layer: int) -> None:
    directory = get_pretrained_saes_directory()
    if source.release not in directory:
        if "/" not in str(source.release):
            raise ConfigError(
                f"sae.release: sae-lens knows no release {source.release!r}, and it is not the id "
                "of a hub repository."
            )
        return
    if sae_id(source, layer) not in directory[source.release].saes_map:
        raise no_such_sae(source, layer)


def no_such_sae(source: SAESource, layer: int | str) -> ConfigError:
    """Return the error about a missing SAE; ``layer`` is ``"{layer}"`` if no layer has one."""
    every = layer == "{layer}"
    if every:
        wanted = source.template
    else:
        wanted = source.path.format(layer=layer) if source.path else sae_id(source, int(layer))
    if source.path is not None:
        file = Path(wanted) / SAE_CFG_FILENAME
        found = _other_format(source.path, None if every else layer)
        if found is not None:
            other, library = found
            return ConfigError(
                f"sae.path: {file} is not there, but {other} is, as {library} writes it. Only the "
                "format of sae-lens is read: docs/models.md says how to convert an SAE."
            )
        if every:
            return ConfigError(f"sae.path: {file} is there for no layer: check the path.")
        return ConfigError(f"sae.path: {file} is not there; is layer {layer} trained?")
    known = get_pretrained_saes_directory()[str(source.release)].saes_map
    return ConfigError(
        f"sae.id: {source.release} has no {wanted!r}; it has {len(known)}, such as "
        f"{next(iter(known))!r}."
    )


def _other_format(template: str, layer: int | str | None) -> tuple[Path, str] | None:
    """Return a file of another library in the directory of a layer, or of any, and the library."""
    if layer is None:
        folder = re.sub(r"\{layer[^}]*\}", "*", escape(template))
    else:
        folder = escape(template.format(layer=layer))
    for pattern, library in _OTHER_FORMATS.items():
        found = sorted(glob(f"{folder}/{pattern}"))  # noqa: PTH207 - it may be absolute
        if found:
            return Path(found[0]), library
    return None


def local_sae_revision(source: SAESource, layers: list[int]) -> str:
    """Return a digest over the SAEs of ``layers`` of a source that is a path."""
    digest = hashlib.sha256()
    for layer in layers:
        digest.update(content_digest(str(source.path).format(layer=layer)).encode())
    return "sha256:" + digest.hexdigest()


def pinned_sae(model: Model, resources: dict[str, Any]) -> SAESource:
    """Return the SAE source of ``model``, having checked that it is the one that was fetched.

    sae-lens has no revisions: it reads what the cache calls ``main``, which must still be the
    commit of the fetch stage.

    Raises:
        ModelError: if local SAEs were changed since, or the cache holds another commit or none.

    """
    source, expected = model.sae, resources["sae_revision"]
    repository = sae_repository(source, resources["layers"][0])
    if repository is None:
        try:
            found = local_sae_revision(source, resources["layers"])
        except FileNotFoundError as error:
            raise ModelError(
                f"{source.path}: the SAE is gone since it was fetched: put it back, or correct "
                "`path`."
            ) from error
        if found != expected:
            raise changed(str(source.path))
        return source
    cached = cached_commit(repository)
    if cached is None:
        raise ModelError(
            f"{repository} is not in the local cache: run the fetch rule on a machine with a "
            "network, with the same HF_HOME."
        )
    if cached != expected:
        raise ModelError(
            f"{repository}: the local cache holds commit {cached}, {expected} was pinned. Delete "
            "resources.json of the experiment, if it is there, and run again: the fetch rule pins "
            "what is there now."
        )
    return source


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
