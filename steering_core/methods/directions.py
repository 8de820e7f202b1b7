"""Fit the fixed directions of an experiment and keep them in one file."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from steering_core.errors import StorageError
from steering_core.methods.base import Direction, FitData, FixedDirection
from steering_core.storage.arrays import load_arrays, save_arrays


def fit_directions(
    methods: Sequence[FixedDirection],
    data: FitData,
    D: Float[np.ndarray, "d_sae d_model"],
    path: str | Path,
) -> None:
    """Find the unit directions of ``methods`` and write them with the mean residual norm."""
    arrays: dict[str, np.ndarray] = {"residual_norm": np.array([data.residual_norm])}
    for method in methods:
        direction = method.find(data, D)
        arrays[f"{method.name}.vector"] = direction.vector.astype(np.float64)
        if direction.features is not None and direction.coefficients is not None:
            arrays[f"{method.name}.features"] = direction.features.astype(np.int64)
            arrays[f"{method.name}.coefficients"] = direction.coefficients.astype(np.float64)
    save_arrays(path, arrays, {"target_class": data.target_class})


def read_fixed_vectors(path: str | Path) -> dict[str, Float[np.ndarray, " d_model"]]:
    """Return the vector of every fixed method by its name, those that add nothing left out."""
    arrays, _ = load_arrays(path)
    vectors = {
        name.removesuffix(".vector"): vector
        for name, vector in arrays.items()
        if name.endswith(".vector")
    }
    return {name: vectors[name] for name in sorted(vectors) if vectors[name].any()}


def read_direction(path: str | Path, method: str) -> tuple[Direction, float]:
    """Return ``(direction, mean residual norm)`` of a fixed method.

    Raises:
        StorageError: if the method was not fitted.

    """
    arrays, _ = load_arrays(path)
    if f"{method}.vector" not in arrays:
        raise StorageError(f"{path} has no direction of {method}: run the stage again.")
    direction = Direction(
        arrays[f"{method}.vector"],
        arrays.get(f"{method}.features"),
        arrays.get(f"{method}.coefficients"),
    )
    return direction, float(arrays["residual_norm"][0])
