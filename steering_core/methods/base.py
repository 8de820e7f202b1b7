"""What all methods share: their interface, and directions of unit norm with their file."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from steering_core.errors import StorageError
from steering_core.storage.arrays import load_arrays, save_arrays

#: What the strength of a fixed direction is called in every table.
ALPHA = "alpha"


class SteeringMethod(ABC):
    """A steering method."""

    #: Name in the configuration and in every table.
    name: str
    #: What a strength of this method means.
    strength_name: str

    @abstractmethod
    def compute_steering_vector(
        self,
        h: Float[np.ndarray, " d_model"],
        probe_w: Float[np.ndarray, " d_model"],
        probe_b: float,
        D: Float[np.ndarray, "d_sae d_model"],
        sae_features: Float[np.ndarray, " d_sae"] | None = None,
        target_class: Literal[0, 1] = 1,
    ) -> Float[np.ndarray, " d_model"]:
        """Return the vector to add to residual ``h``.

        Args:
            h: the residual, as the site sees it.
            probe_w: weights of the linear probe; its logit is ``probe_w @ h + probe_b``.
            probe_b: its bias.
            D: decoder rows.
            sae_features: feature activations at ``h``; part of the interface, not used here.
            target_class: the class to steer to.

        """


@dataclass(frozen=True)
class Direction:
    """A fixed direction of unit norm, and its coefficients if it acts through features.

    For a feature method ``vector == coefficients @ decoder[features]``. For the others ``features``
    and ``coefficients`` are None.
    """

    vector: Float[np.ndarray, " d_model"]
    features: Int[np.ndarray, " k"] | None = None
    coefficients: Float[np.ndarray, " k"] | None = None


def write_directions(
    path: str | Path, directions: Mapping[str, Direction], residual_norm: float, target_class: int
) -> None:
    """Write the directions of some methods to one file.

    Args:
        path: of the file (safetensors).
        directions: by the name of their method.
        residual_norm: mean residual norm, the unit of their strengths.
        target_class: that they point to.
    """
    arrays: dict[str, np.ndarray] = {"residual_norm": np.array([residual_norm])}
    for name, direction in directions.items():
        arrays[f"{name}.vector"] = direction.vector.astype(np.float64)
        if direction.features is not None and direction.coefficients is not None:
            arrays[f"{name}.features"] = direction.features.astype(np.int64)
            arrays[f"{name}.coefficients"] = direction.coefficients.astype(np.float64)
    save_arrays(path, arrays, {"target_class": target_class})


def read_fixed_vectors(path: str | Path) -> dict[str, Float[np.ndarray, " d_model"]]:
    """Return the vector of every fixed direction by its method, without those that are zero."""
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
