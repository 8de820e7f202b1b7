"""The weights of a repository or directory, in the one format that is loaded."""

from pathlib import Path

from huggingface_hub import snapshot_download

from steering_core.errors import ModelError
from steering_core.hub.errors import explain_hub_errors
from steering_core.models.language_model import is_local
from steering_core.storage.files import read_json

_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"


def fetch_weights(repository: str, revision: str) -> None:
    """Download what transformers loads of a hub repository, and check that the weights are there.

    Raises:
        ModelError: as :func:`require_safetensors`, or if the hub refuses, with what to do.

    """
    folder = repository
    if not is_local(repository):
        with explain_hub_errors(repository):
            folder = snapshot_download(repository, revision=revision, allow_patterns=_FILES)
    require_safetensors(Path(folder), repository)


def require_safetensors(folder: Path, name: str) -> None:
    """Check that ``folder`` has weights that later stages can load.

    Raises:
        ModelError: if there are none in safetensors, or a part that the index lists is missing.

    """
    named = read_json(folder / "config.json").get("transformers_weights")
    files = [folder / file for file in ([named] if named else [_SINGLE, _INDEX])]
    there = next((file for file in files if file.is_file()), None)
    if there is None:
        raise ModelError(
            f"{name} has no weights in safetensors ({' or '.join(file.name for file in files)}), "
            "and no other format is loaded here, as it can run code. Choose another repository or "
            "`revision`, or convert the weights once with transformers' save_pretrained and give "
            "that directory. (Without a network, run the fetch rule where there is one, with the "
            "same HF_HOME.)"
        )
    if there.suffix == ".json":
        parts = sorted(set(read_json(there)["weight_map"].values()))
        missing = [part for part in parts if not (folder / part).is_file()]
        if missing:
            raise ModelError(
                f"{name} lacks {len(missing)} of {len(parts)} files of weights, the first is "
                f"{missing[0]}: it is no whole copy."
            )
