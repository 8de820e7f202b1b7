"""The two reference points: nothing, and a direction that means nothing."""

import numpy as np
from jaxtyping import Float

from steering_core.methods.base import Direction, FitData, FixedDirection, unit


class NoSteering(FixedDirection):
    """Adds zero."""

    name = "no_steering"

    def __init__(self) -> None:
        super().__init__(strength=0.0)

    def find(self, data: FitData, D: Float[np.ndarray, "d_sae d_model"]) -> Direction:
        """Return the zero vector, through no feature."""
        return Direction(
            np.zeros(data.residuals.shape[1]), np.zeros(0, dtype=np.int64), np.zeros(0)
        )


class RandomDirection(FixedDirection):
    """A seeded direction, uniform on the sphere."""

    name = "random_direction"

    def find(self, data: FitData, D: Float[np.ndarray, "d_sae d_model"]) -> Direction:
        """Draw the direction; it has no sign to orient."""
        draw = np.random.default_rng(data.seed).standard_normal(data.residuals.shape[1])
        if data.centred:
            draw -= draw.mean()
        return Direction(unit(draw, self.name))
