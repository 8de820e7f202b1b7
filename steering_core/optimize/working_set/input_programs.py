"""The program of one input on the working columns: solve, make exact, repair and certify it.

The cone program ``min cᵀx  s.t. A x ≥ r, ‖Eᵀx‖ ≤ ε, 0 ≤ x ≤ u`` is made exact as a QP with the
right price of the budget (:func:`finish_cone`). With the multiplier η of the budget its solution is
that of the QP with ``s = η r`` and caps ``η u``, ``x' = η x``, and ``‖Eᵀx'‖/η`` falls as η rises.
"""

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from jaxtyping import Float
from scipy import sparse

from steering_core.optimize.working_set.active_set import (
    ActiveSet,
    Exact,
    PerColumn,
    PerMargin,
    Program,
    affine,
    finish_qp,
    guess,
    holds,
    tidied,
)
from steering_core.optimize.working_set.columns import WorkingColumns
from steering_core.optimize.working_set.feasibility import Feasible, meet_budget, meet_margins
from steering_core.optimize.working_set.inner import (
    ConeSolver,
    SolverResult,
    WarmOSQP,
    solve_cone,
    solve_linear,
    solve_quadratic,
)
from steering_core.optimize.working_set.primal import independent, primal_qp

_SLACK = 1e-6  # with a smaller relative price, try the program without its budget
_EXACT = 1e-9  # a relative error below this counts as zero


@dataclass(frozen=True)
class Outcome:
    """One input's solution; NaN where there is none.

    ``miss`` is the worst violation of a constraint, relative to the largest shortfall (margins,
    each in units of its best feature's gain) or to ε (budget). ``prices`` of the margins (in these
    units) and ``budget_price`` η, with ``ν = η Dᵀδ``, are the multipliers of ``dual_objective``.
    """

    status: str
    delta: sparse.csr_array
    objective: float = np.nan
    dual_objective: float = np.nan
    violation: float = np.nan
    norm: float = np.nan
    miss: float = 0.0
    iterations: int = 0
    rounds: int = 0
    inner: str = ""
    prices: PerMargin | None = None
    budget_price: float = np.nan

    @classmethod
    def without_solution(cls, status: str, d_sae: int) -> "Outcome":
        """An input that has no solution."""
        return cls(status, sparse.csr_array((1, d_sae)))

    @classmethod
    def satisfied(cls, d_sae: int) -> "Outcome":
        """An input that passes all margins: δ = 0 is the exact solution."""
        return cls("already_satisfied", sparse.csr_array((1, d_sae)), 0.0, 0.0, 0.0, 0.0)

    def by(self, inner: str) -> "Outcome":
        """A copy with the name of the inner solver whose point was used."""
        return replace(self, inner=inner)

    def counted(self, iterations: int, rounds: int) -> "Outcome":
        """A copy with the iterations and rounds that the input took."""
        return replace(self, iterations=iterations, rounds=rounds)

    @property
    def error(self) -> float:
        """The larger of the absolute relative gap and the miss; infinite if unknown."""
        gap = abs(self.objective - self.dual_objective)
        error = max(gap / self.objective if self.objective > 0 else gap, self.miss)
        return np.inf if np.isnan(error) else error

    def better(self, earlier: "Outcome | None") -> "Outcome":
        """This outcome, or ``earlier`` if that has a smaller error and this one is not exact."""
        if earlier is None or self.error <= max(earlier.error, _EXACT):
            return self
        return earlier

    def judged(self, tolerance: float) -> "Outcome":
        """A copy with the status ``inaccurate`` if its error exceeds ``tolerance``."""
        if self.status != "optimal" or self.error <= tolerance:
            return self
        return replace(self, status="inaccurate")


@dataclass(frozen=True)
class Point:
    """Coefficients of unit columns and multipliers; ``nu`` belongs to the residual vector.

    ``solver`` is the inner solver it came from, ``iterations`` the number that finishing took.
    """

    x: PerColumn
    mu: PerMargin
    nu: Float[np.ndarray, " d_model"]
    solver: str
    iterations: int = 0


class InputProgram(Protocol):
    """What the working set needs from the program of an input."""

    caps: Float[np.ndarray, " columns"]

    def solve(self) -> SolverResult:
        """Solve approximately on the working columns."""

    def finish(self, found: SolverResult) -> Point:
        """Make an approximate solution exact."""

    def repair(self) -> str:
        """Find a feasible point, adding columns if needed: ``"feasible"``, or the final status."""

    def outcome(self, point: Point, costs: Float[np.ndarray, " columns"]) -> Outcome:
        """Values and certificate, given the reduced costs of all columns."""


class QPInputProgram:
    """``min cᵀx + ½‖Eᵀx‖²  s.t. A x ≥ s, 0 ≤ x ≤ u``: the QP with ``x_j = scale ‖d_j‖|δ_j|``.

    ``scale = λ unit``, ``s = scale r``; the objective is that of the QP times ``scale unit``.
    """

    def __init__(
        self,
        columns: WorkingColumns,
        solver: WarmOSQP,
        r: PerMargin,
        qp_lambda: float,
        caps: Float[np.ndarray, " columns"],
    ) -> None:
        self._columns, self._solver = columns, solver
        self._scale = qp_lambda * columns.unit
        self._s, self.caps = self._scale * r, caps
        self._start: SolverResult | None = None  # a feasible point, if solvers give none
        self._last: Point | None = None

    def _program(self) -> Program:
        return self._columns.program(np.where(self.caps > 0, self._scale * self.caps, 0.0))

    def solve(self) -> SolverResult:
        """By OSQP, warm; if that fails, by Clarabel; if that fails too, a feasible point."""
        program = self._program()
        found = self._solver.solve(self._columns.ids, program, self._s)
        if found.status == "solved":
            return found
        again = solve_quadratic(program, self._s)
        again = replace(again, iterations=found.iterations + again.iterations)
        if again.status != "solved" and self._start is not None:
            return replace(_padded(self._start, program), iterations=again.iterations)
        return again

    def finish(self, found: SolverResult) -> Point:
        """By the equations of the active set.

        If the pivots do not converge, the primal method starts from the last round's solution,
        which is still feasible, or from a point of Clarabel. If that fails too, the solver's
        approximate point is tidied.
        """
        program, s = self._program(), self._s
        exact, iterations = finish_qp(program, s, _guessed(program, s, found)), 0
        solver = found.solver
        if exact is None and self._last is not None:
            exact, solver = self._from_last_round(program), self._last.solver
        if exact is None:
            if found.solver != "clarabel":
                found, exact, iterations = self._nearer(program, found)
            solver = found.solver
            exact = exact or primal_qp(program, s, found.x, found.mu)
        if exact is None:
            x = tidied(program, s, found.x, _guessed(program, s, found))
            self._last = None
            return Point(x, found.mu, x @ self._columns.rows, solver, iterations)
        x, mu = exact[:2]
        self._last = Point(x, mu, x @ self._columns.rows, solver, iterations)
        return self._last

    def _from_last_round(self, program: Program) -> Exact | None:
        """The primal method from the last round's solution, padded to the current columns."""
        x = np.zeros(program.caps.size)
        x[: self._last.x.size] = self._last.x
        return primal_qp(program, self._s, x, self._last.mu)

    def _nearer(
        self, program: Program, found: SolverResult
    ) -> tuple[SolverResult, Exact | None, int]:
        """A point of Clarabel, or ``found``; its exact solution if pivots converge; iterations."""
        better = solve_quadratic(program, self._s)
        if better.status != "solved":
            return found, None, better.iterations
        exact = finish_qp(program, self._s, _guessed(program, self._s, better))
        return better, exact, better.iterations

    def repair(self) -> str:
        """By the linear program over the full dictionary."""
        if self._start is not None:
            return "failed"
        caps = np.where(self.caps > 0, self._scale * self.caps, 0.0)
        return self._started(meet_margins(self._columns, self._s, caps))

    def _started(self, found: Feasible) -> str:
        self._start = found.point
        return found.status

    def outcome(self, point: Point, costs: Float[np.ndarray, " columns"]) -> Outcome:
        """The dual value is ``μᵀs − ½‖ν‖²`` minus the dual cost of the caps."""
        columns, scale = self._columns, self._scale
        program = self._program()
        certificate = columns.certify(costs, scale * self.caps, point.x)
        square, shrink = float(point.nu @ point.nu), certificate.shrink
        dual = point.mu @ self._s / shrink - 0.5 * square / shrink**2
        dual -= columns.unit * certificate.capped
        value = float(program.cost @ point.x) + 0.5 * square
        miss = float((self._s - program.margins @ point.x).max() / self._s.max())
        unit = scale * columns.unit
        return Outcome(
            "optimal",
            columns.delta(point.x / scale, self.caps),
            value / unit,
            float(dual) / unit,
            certificate.violation,
            np.sqrt(square) / scale,
            miss,
            prices=point.mu / (shrink * columns.unit),
            budget_price=scale / (shrink * columns.unit),
        )


class ConeInputProgram:
    """``min cᵀx  s.t. A x ≥ r, ‖Eᵀx‖ ≤ ε, 0 ≤ x ≤ u`` with ``x_j = ‖d_j‖|δ_j|``.

    The objective is that of the SOCP times ``unit``.
    """

    def __init__(
        self,
        columns: WorkingColumns,
        solver: ConeSolver,
        r: PerMargin,
        epsilon: float,
        caps: Float[np.ndarray, " columns"],
    ) -> None:
        self._columns, self._solver = columns, solver
        self._r, self._epsilon, self.caps = r, epsilon, caps
        self._start: SolverResult | None = None

    def solve(self) -> SolverResult:
        """By Clarabel or SCS; if that fails, a feasible point, with the price of a tight budget."""
        program = self._columns.program(self.caps)
        found = solve_cone(program, self._r, self._epsilon, self._solver)
        if found.status == "solved" or self._start is None:
            return found
        start = _padded(self._start, program)
        eta = max(float(program.cost @ start.x), 1e-300) / self._epsilon**2
        return replace(start, mu=eta * start.mu, eta=eta, iterations=found.iterations)

    def finish(self, found: SolverResult) -> Point:
        """By the equations of the active set, or the linear program if the budget is slack."""
        program, rows = self._columns.program(self.caps), self._columns.rows
        cost = float(program.cost @ found.x)
        if found.eta * self._epsilon**2 <= _SLACK * cost:
            linear = self._without_budget(program)
            if linear is not None and np.linalg.norm(linear.x @ rows) <= self._epsilon:
                return self._slack(linear, linear.x)
        eta = max(found.eta, _SLACK * cost / self._epsilon**2)
        # the cone program at η is the QP with everything times η
        start = _guessed(program.scaled(eta), eta * self._r, replace(found, x=eta * found.x))
        exact = finish_cone(program, self._r, self._epsilon, eta, found.x, found.mu, start)
        if exact is not None:
            x, mu, eta = exact
            if eta > 0:
                return Point(np.minimum(x / eta, program.caps), mu, x @ rows, found.solver)
            linear = self._without_budget(program)
            if linear is not None:  # of several cheapest points, one within the budget
                return self._slack(linear, np.minimum(x, program.caps))
        x = tidied(program, self._r, found.x, start)
        return Point(x, found.mu, found.eta * (x @ rows), found.solver)

    def _without_budget(self, program: Program) -> SolverResult | None:
        """A cheapest point that meets the margins, and their prices."""
        linear = solve_linear(program.margins, self._r, program.caps, program.cost)
        return linear if linear.status == "solved" else None

    def _slack(self, linear: SolverResult, x: PerColumn) -> Point:
        """A point of the linear program, with its multipliers."""
        nothing = np.zeros(self._columns.rows.shape[1])
        return Point(x, linear.mu, nothing, linear.solver, linear.iterations)

    def repair(self) -> str:
        """By adding columns until the least norm is below ε."""
        if self._start is not None:
            return "failed"
        found = meet_budget(self._columns, self._r, self.caps, self._epsilon)
        self._start = found.point
        return found.status

    def outcome(self, point: Point, costs: Float[np.ndarray, " columns"]) -> Outcome:
        """The dual value is ``μᵀr − ε‖ν‖`` minus the dual cost of the caps."""
        columns, program = self._columns, self._columns.program(self.caps)
        certificate = columns.certify(costs, self.caps, point.x)
        norm = float(np.linalg.norm(point.x @ columns.rows))
        price = float(point.mu @ self._r) - self._epsilon * float(np.linalg.norm(point.nu))
        margin = float((self._r - program.margins @ point.x).max() / self._r.max())
        return Outcome(
            "optimal",
            columns.delta(point.x, self.caps),
            float(program.cost @ point.x) / columns.unit,
            price / certificate.shrink / columns.unit - certificate.capped,
            certificate.violation,
            norm,
            max(margin, norm / self._epsilon - 1.0),
            prices=point.mu / (certificate.shrink * columns.unit),
            budget_price=float(np.linalg.norm(point.nu))
            / (max(norm, 1e-300) * certificate.shrink * columns.unit),
        )


def _guessed(program: Program, s: PerMargin, found: SolverResult) -> ActiveSet:
    """The active set of an approximate solution, its free columns independent."""
    active = guess(program, s, found.x, found.mu)
    return replace(active, free=independent(program, active, found.x))


def _padded(start: SolverResult, program: Program) -> SolverResult:
    """``start`` padded with zeros to the columns that the program has now."""
    x = np.zeros(program.caps.size)
    x[: start.x.size] = start.x
    return replace(start, x=x)


# --------------------------------------------------------------------------- the price of a budget
_PRICES = 80
_MET = 1e-13  # a norm closer (relative) to the budget than this meets it
_FREE = 1e-6  # a price at which the budget costs less than this (relative) counts as zero

ExactCone = tuple[Float[np.ndarray, " n"], Float[np.ndarray, " k"], float]


def finish_cone(
    program: Program,
    r: Float[np.ndarray, " k"],
    epsilon: float,
    eta: float,
    x: Float[np.ndarray, " n"],
    mu: Float[np.ndarray, " k"],
    active: ActiveSet,
) -> ExactCone | None:
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
) -> tuple[float | None, ExactCone | None]:
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
