"""Non-negative least squares that say when they did not settle."""

import numpy as np
from jaxtyping import Float
from scipy.optimize import nnls


def nonnegative(
    matrix: Float[np.ndarray, "m n"], target: Float[np.ndarray, " m"]
) -> Float[np.ndarray, " n"] | None:
    """``argmin_{x ≥ 0} ‖matrix x − target‖`` (Lawson and Hanson); None if steps run out."""
    try:
        return nnls(matrix, target)[0]
    except RuntimeError:  # the one thing it raises for finite arrays that fit
        return None
