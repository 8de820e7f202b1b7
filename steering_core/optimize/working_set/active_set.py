"""Makes an approximate solution exact: finds its active set, then solves the linear equations.

First-order and interior-point solvers are exact only to their tolerance. This module guesses from
such a solution which coefficients are free, zero or at their cap. Block principal pivoting corrects
the guess until the optimality conditions hold to rounding; zeros are then exact.

The program is ``min cᵀx + ½ xᵀGx  s.t. A x ≥ s, 0 ≤ x ≤ u`` with ``G = E Eᵀ`` and rows of E of
unit length.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float
from scipy.linalg import cho_factor, cho_solve

_SINGULAR = 1e-15  # a squared distance to the span (relative) below this cannot be solved with
_ZERO = 1e-10  # relative tolerance of the optimality conditions
_PIVOTS = 120
_PATIENCE = 8  # block pivots without fewer violations before single pivots

PerColumn = Float[np.ndarray, " n"]
PerMargin = Float[np.ndarray, " k"]


@dataclass(frozen=True)
class ActiveSet:
    """The columns that are free or at their cap (the others are zero), and the tight margins."""

    free: Bool[np.ndarray, " n"]
    capped: Bool[np.ndarray, " n"]
    tight: Bool[np.ndarray, " k"]


#: Coefficients, prices of the margins, and their active set.
Exact = tuple[PerColumn, PerMargin, ActiveSet]


@dataclass(frozen=True)
class Program:
    """Data of the program on the working columns: G, A, the caps u (infinite allowed) and c."""

    gram: Float[np.ndarray, "n n"]
    margins: Float[np.ndarray, "k n"]
    caps: PerColumn
    cost: PerColumn

    def scaled(self, factor: float) -> "Program":
        """The same with caps times ``factor``."""
        return replace(self, caps=self.caps * factor)


def guess(
    program: Program,
    s: PerMargin,
    x: PerColumn,
    mu: PerMargin,
) -> ActiveSet:
    """Active set of an approximate primal and dual solution of the QP.

    At the optimum a coefficient or its reduced cost is zero. The one that is smaller, relative to
    the largest of its kind, is taken as zero; likewise for a margin and its price.
    """
    cost = program.cost + program.gram @ x - mu @ program.margins
    cost = cost / _scale(program, mu)
    size = _size(x)
    usable = program.caps > 0
    capped = usable & (program.caps - x <= -cost * size)
    free = usable & ~capped & (x > np.maximum(cost, 1e-12) * size)
    tight = mu / _size(mu) > np.maximum((program.margins @ x - s) / reaches(s), 1e-12)
    return ActiveSet(free, capped, tight)


def affine(
    program: Program,
    active: ActiveSet,
    margin: Float[np.ndarray, "k m"],
    cap: Float[np.ndarray, " m"],
    cost: Float[np.ndarray, " m"],
) -> tuple[Float[np.ndarray, "n m"], Float[np.ndarray, "k m"]] | None:
    """Solve the equations of an active set for several right-hand sides.

    Column i: caps times ``cap[i]``, margins ``margin[:, i]``, c times ``cost[i]``. Returns
    ``(x, mu)``, or None if the free columns are linearly dependent.
    """
    free, tight = active.free, active.tight
    x = np.zeros((program.caps.size, cap.size))
    x[active.capped] = program.caps[active.capped, None] * cap
    mu = np.zeros((tight.size, cap.size))
    if not free.any():
        return x, mu
    gram, a = program.gram[np.ix_(free, free)], program.margins[np.ix_(tight, free)]
    push = (
        -np.outer(program.cost[free], cost)
        - program.gram[free][:, active.capped] @ x[active.capped]
    )
    factor = cholesky(gram)
    if factor is None:
        return None
    base = cho_solve(factor, push, check_finite=False)
    if tight.any():
        lift = cho_solve(factor, a.T, check_finite=False)
        need = margin[tight] - program.margins[np.ix_(tight, active.capped)] @ x[active.capped]
        for _ in range(2):  # twice: with margins much smaller than costs, the first is rounding
            more = np.linalg.lstsq(a @ lift, need - a @ base, rcond=1e-13)[0]
            mu[tight] += more
            base = base + lift @ more
    x[free] = base
    return x, mu


def violations(
    program: Program, active: ActiveSet, s: PerMargin, x: PerColumn, mu: PerMargin
) -> tuple[PerColumn, PerMargin]:
    """By how much each column and each margin violates its condition; all zero at the optimum."""
    cost = program.cost + program.gram @ x - mu @ program.margins
    scale = _scale(program, mu)
    size = _size(x)
    column = np.where(active.capped, cost, -cost) / scale
    free = np.maximum(-x, x - program.caps) / size
    column = np.where(active.free, free, column)
    column[program.caps <= 0] = 0.0
    gap = s - program.margins @ x
    margin = np.where(active.tight, -mu / _size(mu), gap / reaches(s))
    return np.where(column > _ZERO, column, 0.0), np.where(margin > _ZERO, margin, 0.0)


def finish_qp(program: Program, s: PerMargin, active: ActiveSet) -> Exact | None:
    """Exact ``(x, mu, active set)`` of the QP, starting from a guessed active set.

    None if the pivots do not converge or meet dependent columns; keep the approximate solution.
    """
    fewest, patience = np.inf, _PATIENCE
    one = np.ones(1)
    for _ in range(_PIVOTS):
        solved = affine(program, active, s[:, None], one, one)
        if solved is None:
            return None
        x, mu = solved[0][:, 0], solved[1][:, 0]
        columns, margins = violations(program, active, s, x, mu)
        bad = np.concatenate([columns, margins])
        count = np.count_nonzero(bad)
        if count == 0:
            if not _meets(program, active, s, x):
                return None
            x[active.free] = np.maximum(x[active.free], 0.0)
            return x, mu, active
        if count < fewest:
            fewest, patience = count, _PATIENCE
        else:
            patience -= 1
        if patience < 0:  # Murty's rule: pivot on the last violation only
            only = np.flatnonzero(bad)[-1]
            bad = np.zeros_like(bad)
            bad[only] = 1.0
        active = _pivot(program, active, x, bad)
    return None


def tidied(program: Program, s: PerMargin, x: PerColumn, active: ActiveSet) -> PerColumn:
    """``x`` without values at the level of the solver's tolerance, if pivoting did not converge.

    Coefficients outside the active set become zero. The smallest change of the free coefficients
    then restores the tight margins.
    """
    x = np.where(active.free, x, np.where(active.capped, program.caps, 0.0))
    a = program.margins[np.ix_(active.tight, active.free)]
    gap = s[active.tight] - program.margins[active.tight] @ x
    x[active.free] += np.linalg.lstsq(a, gap, rcond=1e-13)[0]
    return np.clip(x, 0.0, program.caps)


def reaches(s: PerMargin) -> PerMargin:
    """Size of each margin: of the largest one, or its own if that is larger.

    The bound of a guard is a negative margin. A wide one must not widen the tolerance of others.
    """
    return np.maximum(np.abs(s), max(float(s.max(initial=0.0)), 1e-300))


def holds(program: Program, active: ActiveSet, s: PerMargin, x: PerColumn, mu: PerMargin) -> bool:
    """Whether a solution of the equations of an active set is optimal."""
    columns, margins = violations(program, active, s, x, mu)
    return not columns.any() and not margins.any() and _meets(program, active, s, x)


def cholesky(
    gram: Float[np.ndarray, "m m"], least: float = _SINGULAR
) -> tuple[Float[np.ndarray, "m m"], bool] | None:
    """Factor of a Gram matrix; None if a squared relative distance to a span is below ``least``."""
    if gram.size == 0:
        return gram, False
    try:
        factor = cho_factor(gram, check_finite=False)
    except np.linalg.LinAlgError:
        return None
    distance = np.diag(factor[0]) ** 2
    return factor if (distance > least * np.diag(gram)).all() else None


def _meets(program: Program, active: ActiveSet, s: PerMargin, x: PerColumn) -> bool:
    """Whether the tight margins hold; they do not if the free columns are too few or too alike."""
    gap = s - program.margins @ x
    return bool((np.abs(gap) <= _ZERO * reaches(s))[active.tight].all())


def _pivot(
    program: Program, active: ActiveSet, x: PerColumn, bad: Float[np.ndarray, " n_plus_k"]
) -> ActiveSet:
    n = program.caps.size
    column, margin = bad[:n] > 0, bad[n:] > 0
    to_cap = column & active.free & (x > program.caps)
    leaves = column & active.free
    enters = column & ~active.free
    return ActiveSet(
        (active.free & ~leaves) | enters,
        (active.capped & ~enters) | to_cap,
        active.tight ^ margin,
    )


def _scale(program: Program, mu: PerMargin) -> PerColumn:
    """Size of the terms of each reduced cost."""
    return np.maximum(program.cost + np.abs(mu) @ np.abs(program.margins), 1e-300)


def _size(s: Float[np.ndarray, " m"]) -> float:
    """Largest magnitude."""
    return max(float(np.abs(s).max(initial=0.0)), 1e-300)
