"""Named numpy arrays with JSON metadata, as safetensors.

It has its own module because the frame of every stage imports the files: numpy must not be there
before the threads are fixed (:func:`steering_core.runtime.machine.fix_threads`).
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from steering_core.errors import StorageError
from steering_core.storage.files import atomic_path


def save_arrays(
    path: str | Path, arrays: dict[str, np.ndarray], metadata: dict[str, Any] | None = None
) -> None:
    """Write ``arrays`` and ``metadata`` to ``path``, atomically and byte-reproducibly."""
    # Use a single header entry: safetensors does not keep the order of several.
    header = {"json": json.dumps(metadata or {}, sort_keys=True)}
    with atomic_path(path) as temporary:
        save_file(
            {name: np.asarray(array, order="C") for name, array in arrays.items()},
            temporary,
            metadata=header,
        )


def load_arrays(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read what :func:`save_arrays` wrote: ``(arrays, metadata)``.

    Raises:
        StorageError: if the file is missing or damaged.

    """
    if not Path(path).is_file():
        raise StorageError(f"{path} does not exist: run the stage that writes it.")
    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}
            metadata = json.loads((file.metadata() or {}).get("json", "{}"))
    except SafetensorError as error:
        raise StorageError(f"{path} is damaged ({error}): delete it and run again.") from error
    return arrays, metadata


def save_decoder(path: str | Path, decoder: Float[np.ndarray, "d_sae d_model"], name: str) -> None:
    """Write the decoder rows of the SAE called ``name``."""
    save_arrays(path, {"decoder": decoder}, {"sae": name})


def load_decoder(path: str | Path) -> Float[np.ndarray, "d_sae d_model"]:
    """Read what :func:`save_decoder` wrote.

    Raises:
        StorageError: if the file is missing or damaged.
    """
    return load_arrays(path)[0]["decoder"]
