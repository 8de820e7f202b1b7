"""Makes a solution of the cone program exact, as a QP with the right price of the budget.

The program is ``min cᵀx  s.t. A x ≥ r, ‖Eᵀx‖ ≤ ε, 0 ≤ x ≤ u``. With the multiplier η of the
budget its solution is that of the QP with ``s = η r`` and caps ``η u``, ``x' = η x``, and
``‖Eᵀx'‖/η`` falls as η rises.
"""

import numpy as np
from jaxtyping import Float

from steering_core.optimize.working_set.active_set import (
    ActiveSet,
    Program,
    affine,
    finish_qp,
    holds,
)
from steering_core.optimize.working_set.primal import primal_qp

_PRICES = 80
_MET = 1e-13  # a norm closer (relative) to the budget than this meets it
_FREE = 1e-6  # a price at which the budget costs less than this (relative) counts as zero

Exact = tuple[Float[np.ndarray, " n"], Float[np.ndarray, " k"], float]


def finish_cone(
    program: Program,
    r: Float[np.ndarray, " k"],
    epsilon: float,
    eta: float,
    x: Float[np.ndarray, " n"],
    mu: Float[np.ndarray, " k"],
    active: ActiveSet,
) -> Exact | None:
    """``(x', mu, eta)`` of the program, exact if its budget is tight.

    On an active set x' is affine in η, so the budget is a quadratic equation in η. Its root gives
    the next active set, between the prices known to be too low and too high.

    Args:
        program: G, A, u and c.
        r: shortfalls.
        epsilon: budget.
        eta: approximate price of the budget.
        x: approximate solution, in terms of x (not x').
        mu: approximate multipliers of the margins.
        active: guessed active set.

    Returns:
        If the budget is slack, its price is 0 and x is returned in place of x'. The multipliers
        are then those of the linear program, which the caller solves. None as for
        :func:`finish_qp`, or if no price meets the budget.
    """
    low, high = 0.0, np.inf
    least = _FREE * float(program.cost @ x) / epsilon**2
    for _ in range(_PRICES):
        root, exact = _on_active_set(program, r, epsilon, eta, active)
        if exact is not None and root > least:
            return exact
        eta = max(_between(low, high, root, eta), least)
        now = program.scaled(eta)
        settled = finish_qp(now, eta * r, active) or primal_qp(now, eta * r, eta * x, mu)
        if settled is None:
            return None
        scaled, mu, active = settled
        x = scaled / eta
        norm = float(np.sqrt(max(x @ program.gram @ x, 0.0)))
        low, high = (eta, high) if norm > epsilon else (low, eta)
        if high <= least:
            return x, mu, 0.0
        # At the least norm no price meets the budget exactly.
        if abs(norm - epsilon) <= _MET * epsilon or high <= low * (1.0 + _MET):
            return scaled, mu, eta
    return None


def _on_active_set(
    program: Program,
    r: Float[np.ndarray, " k"],
    epsilon: float,
    eta: float,
    active: ActiveSet,
) -> tuple[float | None, Exact | None]:
    """The price near ``eta`` that meets the budget on an active set, or None.

    The second value is ``(x', mu, price)`` there, or None if that active set is not optimal.
    """
    margins = np.stack([np.zeros_like(r), r], axis=1)
    solved = affine(program, active, margins, np.array([0.0, 1.0]), np.array([1.0, 0.0]))
    if solved is None:
        return None, None
    (x0, x1), (mu0, mu1) = solved[0].T, solved[1].T
    gram = program.gram
    root = _price(x1 @ gram @ x1 - epsilon**2, x0 @ gram @ x1, x0 @ gram @ x0, epsilon, eta)
    if root is None:
        return None, None
    x, mu = x0 + root * x1, mu0 + root * mu1
    if not holds(program.scaled(root), active, root * r, x, mu):
        return root, None
    return root, (np.maximum(x, 0.0), mu, root)


def _between(low: float, high: float, root: float | None, eta: float) -> float:
    """``root`` if it lies strictly inside, else a price that does."""
    if root is not None and low < root < high:
        return root
    if np.isinf(high):
        return 4.0 * max(low, eta)
    return np.sqrt(low * high) if low > 0 else min(high, eta) / 4.0


def _price(a: float, half_b: float, c: float, epsilon: float, near: float) -> float | None:
    """The η with ``‖x0/η + x1‖ = ε``, given ``(‖x1‖² − ε², x0·x1, ‖x0‖²)``.

    If ε is the least norm, any large η meets it and a computed root is rounding error. Then the
    first η is returned that meets ε closely enough.
    """
    root = _nearest_root(a, half_b, c, near)
    enough = np.sqrt(0.5 * c / _MET) / epsilon
    if enough > 0 and (root is None or root > enough):
        over = a + 2 * half_b / enough + c / enough**2
        if abs(over) <= 4 * _MET * epsilon**2:
            return enough
    return root


def _nearest_root(a: float, half_b: float, c: float, near: float) -> float | None:
    """Positive root of ``a t² + 2 half_b t + c`` nearest to ``near``."""
    under = half_b**2 - a * c
    if under < 0:
        return None
    q = -(half_b + np.copysign(np.sqrt(under), half_b))
    roots = [q / a if a else np.inf, c / q if q else np.inf]
    roots = [root for root in roots if 0 < root < np.inf]
    return min(roots, key=lambda root: abs(np.log(root / near))) if roots else None
