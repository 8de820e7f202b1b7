"""Write the model of a GGUF file as a directory of transformers: weights, tokenizer, configuration.

The weights of a GGUF file are mostly quantised. They are read in float32, in which every quantised
value is exact up to rounding, so the directory has the model that the file describes.
"""

import logging
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from gguf import GGUFReader
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PretrainedConfig

from steering_core.errors import ModelError
from steering_core.models.language_model import build_skeleton
from steering_core.runtime.machine import running_versions
from steering_core.storage.files import atomic_directory, read_json, write_json
from steering_core.storage.integrity import named_digest

log = logging.getLogger(__name__)

#: In the directory: which file it comes from.
ORIGIN = "gguf.json"
#: Errors of the reader on a file that is cut off or overwritten. It checks little itself.
_DAMAGE = (ValueError, KeyError, IndexError, OverflowError, TypeError, MemoryError)


def origin_of(directory: str | Path) -> dict[str, Any] | None:
    """Return what a directory says about the GGUF file it was made from; None for other models.

    Returns:
        The keys ``source``, ``sha256``, ``architecture``, ``tensors`` (how many of each type) and
        ``versions``.
    """
    file = Path(directory) / ORIGIN
    return read_json(file) if file.is_file() else None


def check_file(path: Path, source: str, expected: str = "main") -> dict[str, Any]:
    """Make sure that a GGUF file is whole and of an architecture that transformers reads.

    No weight is read.

    Args:
        path: of the file.
        source: its id in the configuration, for messages.
        expected: ``sha256:`` and the digest that the file must have; ``main`` for any.

    Returns:
        What :func:`origin_of` returns, without ``versions``.

    Raises:
        ModelError: if the file is missing, damaged, another one than expected, or of an
            architecture that transformers does not read from GGUF.
    """
    if not path.is_file():
        raise ModelError(f"{source}: there is no file {path}.")
    digest = named_digest(path)
    if expected not in ("main", digest):
        raise ModelError(
            f"{source}: {path} has the digest {digest}, not {expected} as `revision` says. The "
            "file is damaged or another one: get it again, or correct `revision`."
        )
    try:
        reader = GGUFReader(path)
        field = reader.get_field("general.architecture")
        architecture = None if field is None else field.contents()
        types = Counter(tensor.tensor_type.name for tensor in reader.tensors)
    except _DAMAGE as error:
        raise ModelError(
            f"{source}: {path} is damaged or no GGUF file ({error}). Get it again."
        ) from error
    if architecture is None or not types:
        raise ModelError(f"{source}: {path} holds no model: it has no architecture or no weights.")
    build_skeleton(_config(path, source, architecture), source)
    return {
        "source": source,
        "sha256": digest.removeprefix("sha256:"),
        "architecture": architecture,
        "tensors": dict(sorted(types.items())),
    }


def _config(path: Path, source: str, architecture: str) -> PretrainedConfig:
    try:
        return AutoConfig.from_pretrained(path.parent, gguf_file=path.name)
    except (ValueError, NotImplementedError, KeyError) as error:
        raise ModelError(
            f"{source}: transformers cannot read a GGUF file of the architecture {architecture!r} "
            f"({error}). Give the model's hub id or a directory in safetensors instead."
        ) from error


def dequantise(
    path: Path, source: str, directory: str | Path, expected: str = "main"
) -> dict[str, Any]:
    """Write the model of a GGUF file to ``directory`` in float32, with its tokenizer.

    Args:
        path: of the file.
        source: its id in the configuration.
        directory: is replaced, atomically.
        expected: as for :func:`check_file`.

    Returns:
        What :func:`origin_of` returns.

    Raises:
        ModelError: as :func:`check_file`, or if the file lacks the tokenizer or some of the
            weights, or holds a weight that is not finite or of a type that is not read.
    """
    origin = {**check_file(path, source, expected), "versions": running_versions()}
    try:
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    except (ValueError, NotImplementedError, KeyError, OSError) as error:
        raise ModelError(
            f"{source}: transformers cannot read the tokenizer of {path} ({error}). Give the "
            "model's hub id or a directory in safetensors instead."
        ) from error
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, dtype=torch.float32, output_loading_info=True
        )
    except (NotImplementedError, *_DAMAGE) as error:
        raise ModelError(
            f"{source}: the weights of {path} cannot be read ({error}). The file is damaged, or "
            "has a type of quantisation that `gguf` does not read: get it again, or choose "
            "another file of this model."
        ) from error
    if lacking := sorted(info["missing_keys"]):  # transformers would draw them at random
        raise ModelError(
            f"{source}: {path} lacks {len(lacking)} weights of {type(model).__name__}, the first "
            f"is {lacking[0]}. Give the model's hub id or a directory in safetensors instead."
        )
    for name, weight in model.named_parameters():
        if not bool(torch.isfinite(weight).all()):
            raise ModelError(f"{source}: {path} has NaN or infinity in {name}. Get it again.")
    # transformers refuses to save a model that it read from GGUF, though its weights are plain
    # tensors by now.
    model.is_quantized, model.hf_quantizer = False, None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    with atomic_directory(directory) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        write_json(folder / ORIGIN, origin)
    log.info(
        "%s: %s, SHA-256 %s, written as float32", source, type(model).__name__, origin["sha256"]
    )
    return origin
