"""The decoder that the solves and directions need, apart from its SAE."""

from pathlib import Path

import numpy as np
from jaxtyping import Float

from steering_core.storage.arrays import load_arrays, save_arrays


def save_decoder(path: str | Path, decoder: Float[np.ndarray, "d_sae d_model"], name: str) -> None:
    """Write the decoder rows of the SAE called ``name``."""
    save_arrays(path, {"decoder": decoder}, {"sae": name})


def load_decoder(path: str | Path) -> Float[np.ndarray, "d_sae d_model"]:
    """Read what :func:`save_decoder` wrote.

    Raises:
        StorageError: if the file is missing or damaged.
    """
    return load_arrays(path)[0]["decoder"]
