"""Where the SAEs of a model come from, and what their configuration alone tells."""

import json
from dataclasses import dataclass
from pathlib import Path

from sae_lens.loading.pretrained_sae_loaders import (
    get_sae_lens_config_from_disk,
    handle_config_defaulting,
    load_sae_config_from_huggingface,
)
from sae_lens.loading.pretrained_saes_directory import (
    get_pretrained_saes_directory,
    get_repo_id_and_folder_name,
)

from steering_core.config.model import SAESource
from steering_core.errors import ConfigError
from steering_core.models.hub import explain_hub_errors
from steering_core.models.site import Site, site_of


@dataclass(frozen=True)
class SAEShape:
    """Site and sizes of an SAE."""

    name: str
    site: Site
    d_in: int
    d_sae: int
    neuronpedia_id: str | None


def sae_name(source: SAESource, layer: int) -> str:
    """Return the SAE's release and id, or its path, for ``layer``."""
    if source.path is not None:
        return source.path.format(layer=layer)
    return f"{source.release}/{source.id.format(layer=layer)}"


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
    return [layer for layer in range(n_layers) if source.id.format(layer=layer) in known]


def load_sae_shape(source: SAESource, layer: int) -> SAEShape:
    """Read the configuration of the SAE of ``layer``, not its weights.

    Raises:
        ConfigError: if there is no such SAE.
        ModelError: if its site cannot be steered.

    """
    name = sae_name(source, layer)
    if source.path is not None:
        file = Path(name) / "cfg.json"
        if not file.is_file():
            raise no_such_sae(source, layer)
        try:
            config = handle_config_defaulting(get_sae_lens_config_from_disk(name))
        except json.JSONDecodeError as error:
            raise ConfigError(f"sae.path: {file} is not JSON: {error}") from error
    else:
        _require_known(source, layer)
        with explain_hub_errors(str(source.release)):
            config = load_sae_config_from_huggingface(
                str(source.release), str(source.id).format(layer=layer)
            )
    metadata = config["metadata"]
    return SAEShape(
        name,
        site_of(metadata, name),
        int(config["d_in"]),
        int(config["d_sae"]),
        metadata.get("neuronpedia_id"),
    )


def sae_repository(source: SAESource, layer: int) -> str | None:
    """Return the hub repository that holds the SAE of ``layer``; None for a local one."""
    if source.path is not None:
        return None
    return get_repo_id_and_folder_name(str(source.release), str(source.id).format(layer=layer))[0]


def _require_known(source: SAESource, layer: int) -> None:
    directory = get_pretrained_saes_directory()
    if source.release not in directory:
        if "/" not in str(source.release):
            raise ConfigError(
                f"sae.release: sae-lens knows no release {source.release!r}, and it is not the id "
                "of a hub repository."
            )
        return
    if source.id.format(layer=layer) not in directory[source.release].saes_map:
        raise no_such_sae(source, layer)


def no_such_sae(source: SAESource, layer: int | str) -> ConfigError:
    """Return the error about an SAE that is not there; ``"{layer}"`` if no layer has one."""
    if source.path is not None:
        file = Path(source.path.format(layer=layer)) / "cfg.json"
        if layer == "{layer}":
            return ConfigError(f"sae.path: {file} is there for no layer: check the path.")
        return ConfigError(f"sae.path: {file} is not there; is layer {layer} trained?")
    known = get_pretrained_saes_directory()[str(source.release)].saes_map
    return ConfigError(
        f"sae.id: {source.release} has no {str(source.id).format(layer=layer)!r}; it has "
        f"{len(known)}, such as {next(iter(known))!r}."
    )
