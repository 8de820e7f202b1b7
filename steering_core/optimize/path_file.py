"""A path on disk: its knots under one digest."""

import hashlib
import json
from pathlib import Path

import numpy as np
from jaxtyping import Float

from steering_core.errors import StorageError
from steering_core.optimize.knots import Knots
from steering_core.storage.arrays import load_arrays, save_arrays

_FORMAT = "steering-path-2"
_ARRAYS = ("s", "mu", "l1", "violation", "v", "indptr", "indices", "values", "active")


def write_path(
    file: str | Path,
    knots: Knots,
    weight: Float[np.ndarray, " d_model"],
    d_sae: int,
    digests: dict[str, str],
) -> None:
    """Write a path to ``file`` (safetensors), with a SHA-256 over everything in it.

    Args:
        file: where to.
        knots: the fitted range.
        weight: of the probe.
        d_sae: features of the decoder.
        digests: SHA-256 of the ``decoder`` and the ``weight``.
    """
    arrays = {**{name: getattr(knots, name) for name in _ARRAYS}, "weight": weight}
    metadata = {"format": _FORMAT, "d_sae": d_sae, "digests": digests}
    save_arrays(file, arrays, {**metadata, "contents": _contents(arrays, metadata)})


def read_path(
    file: str | Path,
) -> tuple[Knots, Float[np.ndarray, " d_model"], int, dict[str, str]]:
    """Read what :func:`write_path` wrote: ``(knots, weight, d_sae, digests)``.

    Raises:
        StorageError: if the file is missing, no path of this version, or not as it was written.
    """
    arrays, metadata = load_arrays(file)
    if metadata.get("format") != _FORMAT or set(arrays) != {*_ARRAYS, "weight"}:
        raise StorageError(f"{file} is not a steering path of this version: fit it again.")
    if metadata.pop("contents", None) != _contents(arrays, metadata):
        raise StorageError(f"{file} is damaged: delete it and fit the path again.")
    weight = arrays.pop("weight")
    return Knots(**arrays), weight, metadata["d_sae"], metadata["digests"]


def _contents(arrays: dict[str, np.ndarray], metadata: dict) -> str:
    sha = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        sha.update(f"{name} {array.dtype.str} {array.shape}".encode())
        sha.update(array)
    return sha.hexdigest()
