"""Whether margins can be met under caps and a budget: returns a point, or proves there is none.

A program is called ``infeasible`` only with a Farkas certificate on the full dictionary: prices
μ ≥ 0 of the margins, and a direction of the budget, for which no column helps.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from steering_core.optimize.homotopy import nonnegative_least_squares
from steering_core.optimize.working_set.active_set import (
    PerColumn,
    PerMargin,
    Program,
    finish_qp,
    guess,
)
from steering_core.optimize.working_set.columns import WorkingColumns
from steering_core.optimize.working_set.inner import (
    SolverResult,
    highs,
    solve_linear,
    solve_quadratic,
)
from steering_core.optimize.working_set.primal import primal_qp

_FIRST = 64  # columns of the first working set
_TOWARDS = 128  # columns added a round while searching a shorter point
_FLAT = 1e-10  # a gain below this, relative to its largest, does not refute a certificate
_EDGE = 1e-11  # a budget closer (relative) to the least norm than this counts as equal
Missed = tuple[PerColumn, PerMargin, int]  # point, prices, iterations
_MEETS = 1e-7  # margins missed by less (relative) are corrected by the active set


@dataclass(frozen=True)
class Feasible:
    """A verdict: ``"feasible"`` with a point on the working columns, or another status."""

    status: str
    point: SolverResult | None = None


def meet_margins(
    columns: WorkingColumns, r: PerMargin, caps: Float[np.ndarray, " columns"]
) -> Feasible:
    """Add columns that meet the margins at low cost, and those of lowest reduced cost.

    Args:
        columns: the working set; columns are added to it.
        r: shortfalls, some of them > 0.
        caps: of the coefficients, all ids.
    """
    usable = np.flatnonzero(caps > 0)
    feature = usable % columns.d_sae
    sign = np.where(usable < columns.d_sae, 1.0, -1.0)
    margins = sign * columns.gains[:, feature]
    helps = (margins > 0).any(axis=0)
    usable, feature, margins = usable[helps], feature[helps], margins[:, helps]
    if usable.size == 0:
        return Feasible("infeasible")
    limits = caps[usable] * columns.lengths[feature]
    found = solve_linear(margins, r, limits, columns.unit / columns.lengths[feature])
    if found.status != "solved" or not _meets(margins, r, found.x):
        found = _least_miss(margins, r, limits)
        if found.status != "solved":
            return Feasible(found.status)
    worth = found.mu @ columns.gains * columns.lengths / columns.unit
    costs = np.concatenate([1.0 - worth, 1.0 + worth])
    likely = columns.promising(costs, caps, 1.0, _FIRST)
    used = usable[found.x > 0]
    columns.add(np.union1d(used, likely))
    x = np.zeros(columns.ids.size)
    order = np.argsort(columns.ids)
    x[order[np.searchsorted(columns.ids[order], used)]] = found.x[found.x > 0]
    return Feasible("feasible", SolverResult("solved", x, found.mu, found.iterations, 0.0, "highs"))


def meet_budget(
    columns: WorkingColumns,
    r: PerMargin,
    caps: Float[np.ndarray, " columns"],
    epsilon: float,
) -> Feasible:
    """Add columns until a point that meets the margins has norm <= ε, or none can.

    Args: as :func:`meet_margins`, and the budget ``epsilon``.
    """
    if epsilon < (1.0 - 1e-9) * least_free_norm(columns.directions, r):
        return Feasible("infeasible")
    found = _reaching(columns, r, caps)
    if found.status != "feasible":
        return found
    point = found.point
    while True:
        program = columns.program(caps, costly=False)
        point = _shortest(program, r, point)
        nu = point.x @ columns.rows
        norm = float(np.linalg.norm(nu))
        if norm <= epsilon * (1.0 + _EDGE):
            return Feasible("feasible", point)
        slopes = columns.slopes(nu / norm, point.mu / norm)
        new = columns.promising(slopes, caps, -_FLAT, _TOWARDS)
        if columns.add(new):
            grown = np.zeros(columns.ids.size)
            grown[: point.x.size] = point.x
            point = SolverResult("solved", grown, point.mu, point.iterations, 0.0, point.solver)
            continue
        finite = np.isfinite(caps) & (caps > 0)
        lengths = np.concatenate([columns.lengths, columns.lengths])
        capped = (caps * lengths)[finite] @ np.maximum(-slopes[finite], 0.0)
        bound = float(point.mu @ r) / norm - float(capped)
        return Feasible("infeasible" if bound * (1.0 - _EDGE) > epsilon else "failed")


def least_free_norm(directions: Float[np.ndarray, "k d_model"], r: PerMargin) -> float:
    """Lower bound of ``‖v‖`` over all v with ``W v ≥ r``; 0 if float64 gives none.

    Least distance programming (Lawson and Hanson, 1974, ch. 23) with directions of unit length.
    """
    length = np.linalg.norm(directions, axis=1)
    known = length > 0
    if not known.any():
        return 0.0
    triangle = np.linalg.qr((directions[known] / length[known, None]).T, mode="r")
    need = r[known] / length[known]
    size = max(float(need.max()), 1e-300)
    stacked = np.concatenate([triangle, need[None] / size])
    target = np.zeros(stacked.shape[0])
    target[-1] = 1.0
    weight = nonnegative_least_squares(stacked, target)
    if weight is None or np.linalg.norm(stacked @ weight - target) <= 1e-6:
        return 0.0  # the directions may contradict each other: meet_margins decides
    # ‖v‖‖Wᵀu‖ >= uᵀWv >= uᵀr holds for every u >= 0, also if the solver stopped early.
    rounding = 8.0 * np.finfo(float).eps * float(weight.sum())
    length = float(np.linalg.norm(triangle @ weight)) + rounding
    return size * max(float(need / size @ weight), 0.0) / max(length, 1e-300)


def _reaching(
    columns: WorkingColumns, r: PerMargin, caps: Float[np.ndarray, " columns"]
) -> Feasible:
    """A point on the working columns that meets the margins; adds columns if there is none."""
    if columns.ids.size:
        program = columns.program(caps)
        linear = solve_linear(program.margins, r, program.caps, program.cost)
        if linear.status == "solved" and _meets(program.margins, r, linear.x):
            return Feasible("feasible", linear)
    return meet_margins(columns, r, caps)


def _shortest(program: Program, r: PerMargin, start: SolverResult) -> SolverResult:
    """The least norm on some columns, from a point that meets the margins."""
    found = solve_quadratic(program, r)
    exact = None
    if found.status == "solved":
        exact = finish_qp(program, r, guess(program, r, found.x, found.mu))
        exact = exact or primal_qp(program, r, found.x, found.mu)
    exact = exact or primal_qp(program, r, start.x, start.mu)
    if exact is not None:
        return SolverResult("solved", exact[0], exact[1], found.iterations, solver="clarabel")
    return found if found.status == "solved" else start


def _least_miss(margins: Float[np.ndarray, "k n"], r: PerMargin, caps: PerColumn) -> SolverResult:
    """The least t with ``A x + t ≥ r``; if t > 0 its prices certify infeasibility."""
    sigma, gain = float(r.max()), np.abs(margins).max(axis=0)
    scaled, need, limits = margins / gain, r / sigma, caps * gain / sigma
    found = [_elastic(scaled, need, limits)]
    if np.isinf(limits).all():  # without caps, least squares are exact to rounding
        found.append(_least_squares(scaled, need))
    for x, mu, steps in found:
        point = SolverResult("solved", np.maximum(x, 0.0) * sigma / gain, mu, steps, 0.0, "highs")
        if _meets(margins, r, point.x):
            return point
        if _proves(scaled, need, limits, mu):
            return replace(point, status="infeasible")
    return replace(point, status="failed")


def _elastic(margins: Float[np.ndarray, "k n"], r: PerMargin, caps: PerColumn) -> Missed:
    k, n = margins.shape
    found = highs(
        np.hstack([margins, np.eye(k)]),
        r,
        np.append(caps, np.full(k, np.inf)),
        np.concatenate([np.zeros(n), np.ones(k)]),
        tolerance=1e-10,
    )
    if found.status != "solved":
        return np.zeros(n), np.zeros(k), found.iterations
    return found.x[:n], found.mu, found.iterations


def _least_squares(margins: Float[np.ndarray, "k n"], r: PerMargin) -> Missed:
    k, n = margins.shape
    both = nonnegative_least_squares(np.hstack([margins, -np.eye(k)]), r)
    if both is None:
        return np.zeros(n), np.zeros(k), 0
    return both[:n], np.maximum(r - margins @ both[:n] + both[n:], 0.0), 0


def _proves(
    margins: Float[np.ndarray, "k n"], r: PerMargin, caps: PerColumn, mu: PerMargin
) -> bool:
    """Farkas: at prices μ, all columns together are worth less than the margins require."""
    worth, finite = mu @ margins, np.isfinite(caps)
    flat = (worth[~finite] <= _FLAT * mu.max(initial=0.0)).all()
    most = float(caps[finite] @ np.maximum(worth[finite], 0.0))
    return bool(flat and float(mu @ r) - most > _FLAT * float(mu @ np.abs(r)))


def _meets(margins: Float[np.ndarray, "k n"], r: PerMargin, x: PerColumn) -> bool:
    """Whether a point meets the margins up to the rounding error of its terms."""
    rounding = 4.0 * np.finfo(float).eps * (np.abs(margins) @ np.abs(x))
    return bool((margins @ x - rounding - r >= -_MEETS * float(r.max())).all())
