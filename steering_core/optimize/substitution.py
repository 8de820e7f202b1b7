"""Other metrics and other L1 costs on the same path, by substitution.

The path minimises ``1ᵀδ + (λ/2)‖Dᵀδ‖²``. Two things can be changed without a new solver:

- the metric: ``‖A Dᵀδ‖`` instead of ``‖Dᵀδ‖``, for a symmetric positive definite A;
- the cost: ``kᵀδ`` instead of ``1ᵀδ``, for positive costs k.

Put ``D̃ = K⁻¹ D A`` with ``K = diag(k)``, ``w̃ = A⁻¹ w`` and ``δ̃ = K δ``. Then ``1ᵀδ̃ = kᵀδ``,
``D̃ᵀδ̃ = A Dᵀδ`` and ``(D̃ w̃)ᵀδ̃ = (D w)ᵀδ``: the program in δ̃ is the plain one. So certificates,
all margins, all λ and ε hold as they are. The vector to add is ``Dᵀδ = A⁻¹ (D̃ᵀδ̃)``.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.optimize import nnls

from steering_core.optimize.checks import as_float64

#: ``1 / (1 + length²)`` of the shortest vector, in units of the largest single margin's own: below
#: it margins contradict each other.
_CONTRADICTION = 1e-12
_FLAT = 1e-10  # an eigenvalue below this share of the largest makes a matrix singular


@dataclass(frozen=True, eq=False)
class Substitution:
    """A dictionary in another metric, with other costs of its features.

    Attributes:
        decoder: D̃, a row per feature.
        inverse: A⁻¹; None where A is the identity.
        cost: k; None where every feature costs 1.
    """

    decoder: Float[np.ndarray, "d_sae d_model"]
    inverse: Float[np.ndarray, "d_model d_model"] | None = None
    cost: Float[np.ndarray, " d_sae"] | None = None

    def weight(self, w: Float[np.ndarray, " d_model"]) -> Float[np.ndarray, " d_model"]:
        """Return ``w̃ = A⁻¹ w``."""
        return w if self.inverse is None else self.inverse @ w

    def vectors(self, found: Float[np.ndarray, "n d_model"]) -> Float[np.ndarray, "n d_model"]:
        """Return ``Dᵀδ`` of the solutions' ``D̃ᵀδ̃``."""
        return found if self.inverse is None else found @ self.inverse


def substitute(
    decoder: Float[np.ndarray, "d_sae d_model"],
    metric: Float[np.ndarray, "d_model d_model"] | None = None,
    cost: Float[np.ndarray, " d_sae"] | None = None,
) -> Substitution:
    """Return the dictionary that stands for a metric and costs on the plain path.

    Args:
        decoder: D.
        metric: A², symmetric positive definite; ``vᵀA²v`` is the squared length of v. None is the
            identity. Its scale is that of λ: twice the metric is half the λ.
        cost: k, positive; None is one for every feature.

    Raises:
        ValueError: naming the argument that has the wrong shape or is not positive.
    """
    rows, inverse = as_float64("decoder", decoder, 2), None
    if metric is not None:
        matrix = as_float64("metric", metric, 2)
        if matrix.shape != (rows.shape[1],) * 2:
            raise ValueError(f"metric must be {(rows.shape[1],) * 2}, got {matrix.shape}")
        rows, inverse = rows @ matrix_power(matrix, 0.5), matrix_power(matrix, -0.5)
    if cost is not None:
        cost = as_float64("cost", cost, 1)
        if cost.shape != rows.shape[:1] or not (cost > 0).all():
            raise ValueError(f"cost must hold {rows.shape[0]} values above 0")
        rows = rows / cost[:, None]
    return Substitution(rows, inverse, cost)


def dense_optimum(
    weight: Float[np.ndarray, " d_model"], substitution: Substitution
) -> Float[np.ndarray, " d_model"]:
    """Return ``argmin ‖A v‖²  s.t. wᵀv ≥ 1``, which is ``A⁻²w / (wᵀA⁻²w)``.

    No vector moves ``wᵀv`` as far at a smaller ``‖A v‖``: it is the floor of every sparse program.
    For a margin r it is multiplied by r.

    Raises:
        ValueError: if w is zero.
    """
    inside = substitution.weight(weight)
    square = float(inside @ inside)
    if not square > 0:
        raise ValueError("weight must not be zero")
    return substitution.vectors(inside[None] / square)[0]


def dense_optima(
    weights: Float[np.ndarray, "k d_model"],
    shortfall: Float[np.ndarray, "n k"],
    substitution: Substitution,
) -> Float[np.ndarray, "n d_model"]:
    """Return the vectors of :func:`dense_solutions`."""
    return dense_solutions(weights, shortfall, substitution)[0]


def dense_solutions(
    weights: Float[np.ndarray, "k d_model"],
    shortfall: Float[np.ndarray, "n k"],
    substitution: Substitution,
) -> tuple[Float[np.ndarray, "n d_model"], Float[np.ndarray, "n k"]]:
    """Return ``argmin ‖A v‖²  s.t. w_jᵀv ≥ r_j`` for every j, and the multipliers μ of these.

    The floor of every sparse program with several margins; as :func:`dense_optimum` for one. This
    is least distance programming, solved by non-negative least squares (Lawson and Hanson, Solving
    Least Squares Problems, 1974, chapter 23). A guard is two margins with r below 0.

    Returns:
        A row per input: zeros where no r is above 0, NaN where the margins contradict each other.
        And μ ≥ 0: ``A²v = Σ μ_j w_j``, so ``‖A v‖²/2`` rises by μ_j for each unit of r_j.

    Raises:
        ValueError: if a w_j is zero.
    """
    inside = np.stack([substitution.weight(weight) for weight in weights])
    sizes = np.linalg.norm(inside, axis=1)
    if not (sizes > 0).all():
        raise ValueError("weights must not be zero")
    unit, distance = inside / sizes[:, None], shortfall / sizes
    found = np.zeros((len(shortfall), inside.shape[1]))
    multipliers = np.zeros(distance.shape)
    for i in np.flatnonzero((distance > 0).any(axis=1)):
        scale = distance[i].max()  # no vector is shorter, so the lengths below are of order 1
        system = np.vstack([unit.T, distance[i] / scale])
        last = np.zeros(len(system))
        last[-1] = 1.0
        found_by, _ = nnls(system, last)
        rest = system @ found_by - last
        if -rest[-1] > _CONTRADICTION:
            found[i] = scale * -rest[:-1] / rest[-1]
            multipliers[i] = scale * found_by / -rest[-1] / sizes
        else:
            found[i] = multipliers[i] = np.nan
    return substitution.vectors(found), multipliers


def matrix_power(
    matrix: Float[np.ndarray, "d_model d_model"], exponent: float
) -> Float[np.ndarray, "d_model d_model"]:
    """Return a symmetric positive definite matrix to a power.

    Raises:
        ValueError: if it is not symmetric, or not positive definite in float64.
    """
    if not np.allclose(matrix, matrix.T, rtol=1e-8, atol=1e-12 * np.abs(matrix).max()):
        raise ValueError("metric must be symmetric")
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    if not values[0] > _FLAT * values[-1]:
        raise ValueError("metric must be positive definite: shrink it towards the identity")
    return (vectors * values**exponent) @ vectors.T
