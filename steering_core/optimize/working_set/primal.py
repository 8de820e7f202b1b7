"""A primal active-set method, used where block pivots do not converge.

It starts from a feasible point, stays feasible and keeps the free columns independent, so every
step is well defined and the objective falls. Dependent columns are exchanged along directions that
do not change ``Eᵀx``. Far from the optimum it is slower than block pivots, but from the point of an
interior-point solver few steps are left.
"""

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float
from scipy.linalg import cho_solve
from scipy.linalg.lapack import dpstrf

from steering_core.optimize.working_set.active_set import (
    ActiveSet,
    Exact,
    PerColumn,
    PerMargin,
    Program,
    affine,
    cholesky,
    finish_qp,
    reaches,
    violations,
)

_DEPENDENT = 1e-10  # a squared distance to the span (relative) below this counts as zero
_STEPS = 2000
_NEARLY = 1e-9  # violations that are accepted if steps make no progress
_FALLS = 1e-13  # a smaller relative fall of the objective is no progress
_MEETS = 1e-10  # margins missed by less (relative) count as met
_NONE = 1e-6  # a smaller weight of a column in another counts as zero
_PATIENCE = 50  # steps without progress before columns enter in order of their number

Moved = tuple[ActiveSet, PerColumn]


def independent(program: Program, active: ActiveSet, x: PerColumn) -> Bool[np.ndarray, " n"]:
    """The free columns without dependent ones; those with the largest x stay."""
    index = np.flatnonzero(active.free)
    gram = program.gram[np.ix_(index, index)]
    if cholesky(gram, _DEPENDENT) is not None:
        return active.free
    weight = np.clip(x[index] / max(float(x[index].max()), 1e-300), 1e-2, 1.0)
    scaled = weight[:, None] * gram * weight
    _, order, rank, _ = dpstrf(scaled, tol=_DEPENDENT * float(np.diag(scaled).max()))
    free = np.zeros(x.size, dtype=bool)
    free[index[order[:rank] - 1]] = True
    return free


def primal_qp(
    program: Program,
    s: PerMargin,
    x: PerColumn,
    mu: PerMargin,
) -> Exact | None:
    """``(x, mu, active set)`` of the QP from a nearly feasible point with multipliers.

    Margins that the point misses, by a solver's tolerance, are first relaxed to its values. They
    are corrected on the active set that is then optimal. None if the steps do not end.
    """
    x = np.clip(x, 0.0, program.caps)
    capped = (program.caps > 0) & (x >= program.caps)
    active = ActiveSet((x > 0) & ~capped, capped, np.zeros(s.size, dtype=bool))
    reduced = _reduce(program, active, x)
    if reduced is None:
        return None
    active, x = reduced
    reached = program.margins @ x
    size = reaches(s)
    tight = (mu > 0) & (reached - s <= 1e-6 * size)
    relaxed = np.where(tight, reached, np.minimum(s, reached))
    active = replace(active, tight=_spanned(program, active.free, tight, mu))
    found = _descend(program, relaxed, x, active)
    if found is None:
        return None
    x, mu, active = found
    exact = finish_qp(program, s, active) or _descend(program, s, x, active)
    if exact is not None and (program.margins @ exact[0] >= s - _MEETS * size).all():
        return exact
    return found if (relaxed >= s - _MEETS * size).all() else None


def _descend(program: Program, s: PerMargin, x: PerColumn, active: ActiveSet) -> Exact | None:
    stalled, one, best = 0, np.ones(1), np.inf
    for _ in range(_STEPS):
        solved = affine(program, active, s[:, None], one, one)
        if solved is None:
            return None
        target, mu = solved[0][:, 0], solved[1][:, 0]
        length, hit = _blocking(program, s, x, target, active)
        x = x + length * (target - x)
        if hit is not None:
            active, x = _stop_at(program, active, x, hit)
            continue
        x = np.clip(target, 0.0, program.caps)
        columns, margins = violations(program, active, s, x, mu)
        columns[active.free] = 0.0
        margins[~active.tight] = 0.0
        bad = np.concatenate([columns, margins])
        value = program.cost @ x + 0.5 * x @ program.gram @ x
        stalled = stalled + 1 if value > best - _FALLS * abs(best) else 0
        best = min(best, value)
        if not bad.any() or (stalled > 2 * _PATIENCE and bad.max() <= _NEARLY):
            return x, mu, active
        worst = int(np.flatnonzero(bad)[0] if stalled > _PATIENCE else bad.argmax())
        entered = _enter(program, active, x, worst)
        if entered is None:
            return None
        active, x = entered
    return None


def _blocking(
    program: Program, s: PerMargin, x: PerColumn, target: PerColumn, active: ActiveSet
) -> tuple[float, int | None]:
    """The feasible step (0 to 1) to ``target``, and the column or (n + margin) that limits it."""
    step = target - x
    room = np.full(x.size + s.size, np.inf)
    down, up = active.free & (target < 0), active.free & (target > program.caps)
    columns = room[: x.size]
    columns[down] = x[down] / -step[down]
    columns[up] = (program.caps[up] - x[up]) / step[up]
    fall = -(program.margins @ step)
    slack = np.maximum(program.margins @ x - s, 0.0)
    loose = ~active.tight & (fall > slack + 1e-12 * reaches(s))
    room[x.size :][loose] = slack[loose] / fall[loose]
    first = int(room.argmin())
    return (float(room[first]), first) if room[first] < 1.0 else (1.0, None)


def _stop_at(program: Program, active: ActiveSet, x: PerColumn, hit: int) -> Moved:
    free, capped, tight = active.free.copy(), active.capped.copy(), active.tight.copy()
    if hit >= x.size:
        tight[hit - x.size] = True
    else:
        free[hit] = False
        capped[hit] = bool(x[hit] > 0.5 * program.caps[hit])
        x[hit] = program.caps[hit] if capped[hit] else 0.0
    return ActiveSet(free, capped, tight), x


def _enter(program: Program, active: ActiveSet, x: PerColumn, index: int) -> Moved | None:
    """Free a column, or release margin ``index − n``; a dependent column replaces another."""
    if index >= x.size:
        tight = active.tight.copy()
        tight[index - x.size] = False
        return replace(active, tight=tight), x
    sign = -1.0 if active.capped[index] else 1.0
    free, capped = active.free.copy(), active.capped.copy()
    capped[index], free[index] = False, True
    weights = _weights(program, active.free, index)
    if weights is None:
        return None
    if weights.size == 0 or _distance(program, active.free, index, weights) > _DEPENDENT:
        return replace(active, free=free, capped=capped), x
    return _slide(program, replace(active, capped=capped), x, index, sign, weights)


def _reduce(program: Program, active: ActiveSet, x: PerColumn) -> Moved | None:
    """Bring dependent columns to a bound, one after the other, without changing ``Eᵀx``."""
    inside = active.free
    for _ in range(x.size):
        free = independent(program, replace(active, free=inside), x)
        active, left = replace(active, free=free), np.flatnonzero(inside & ~free)
        weights = _weights(program, free, left[0]) if left.size else None
        if weights is None:
            return (active, x) if left.size == 0 else None
        cheaper = program.cost[left[0]] < weights @ program.cost[free]
        for sign in (1.0, -1.0) if cheaper else (-1.0, 1.0):
            moved = _slide(program, active, x, int(left[0]), sign, weights)
            if moved is not None:
                break
        if moved is None:
            return None
        active, x = moved
        inside = active.free | np.isin(np.arange(x.size), left[1:])
    return None


def _slide(
    program: Program,
    active: ActiveSet,
    x: PerColumn,
    index: int,
    sign: float,
    weights: Float[np.ndarray, " m"],
) -> Moved | None:
    """Move a dependent column, and the free ones against it, until one reaches a bound."""
    inside = np.flatnonzero(active.free)
    x, step = x.copy(), -sign * weights
    room = np.full(inside.size, np.inf)
    down, up = step < -_NONE, step > _NONE
    room[down] = x[inside[down]] / -step[down]
    room[up] = (program.caps[inside[up]] - x[inside[up]]) / step[up]
    own_room = program.caps[index] - x[index] if sign > 0 else x[index]
    length = min(float(room.min(initial=np.inf)), own_room)
    if not np.isfinite(length):
        return None
    x[inside] += length * step
    x[index] += sign * length
    free = active.free.copy()
    free[index] = True
    hit = index if own_room <= length else int(inside[room.argmin()])
    return _stop_at(program, replace(active, free=free), x, hit)


def _weights(
    program: Program, free: Bool[np.ndarray, " n"], index: int
) -> Float[np.ndarray, " m"] | None:
    """Weights of the free columns in a column's projection on their span."""
    inside = np.flatnonzero(free)
    factor = cholesky(program.gram[np.ix_(inside, inside)])
    if factor is None:
        return None
    cross = program.gram[inside, index]
    return cho_solve(factor, cross, check_finite=False) if inside.size else cross


def _distance(
    program: Program, free: Bool[np.ndarray, " n"], index: int, weights: Float[np.ndarray, " m"]
) -> float:
    """Squared distance of a column to the span of the free ones."""
    return float(program.gram[index, index] - weights @ program.gram[free, index])


def _spanned(
    program: Program, free: Bool[np.ndarray, " n"], tight: Bool[np.ndarray, " k"], mu: PerMargin
) -> Bool[np.ndarray, " k"]:
    """The tight margins that are independent on the free columns, highest price first."""
    kept = np.zeros(tight.size, dtype=bool)
    basis = np.zeros((0, int(free.sum())))
    for j in sorted(np.flatnonzero(tight), key=lambda j: -mu[j]):
        row = program.margins[j, free]
        rest = row - (row @ basis.T) @ basis
        rest -= (rest @ basis.T) @ basis
        length = float(np.linalg.norm(rest))
        if length > 1e-9 * max(float(np.linalg.norm(row)), 1e-300):
            kept[j] = True
            basis = np.vstack([basis, rest / length])
    return kept
