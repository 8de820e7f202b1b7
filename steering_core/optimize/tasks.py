"""One input's program on the working columns: how to solve, finish, repair and certify it."""

from dataclasses import replace

import numpy as np
from jaxtyping import Float

from steering_core.optimize.active_set import (
    Exact,
    PerColumn,
    PerMargin,
    Program,
    finish_qp,
    tidied,
)
from steering_core.optimize.cone import finish_cone
from steering_core.optimize.feasibility import Feasible, meet_budget, meet_margins
from steering_core.optimize.inner import (
    ConeSolver,
    Inner,
    WarmOSQP,
    solve_cone,
    solve_linear,
    solve_quadratic,
)
from steering_core.optimize.input_program import Point, guessed, padded
from steering_core.optimize.outcome import Outcome
from steering_core.optimize.primal import primal_qp
from steering_core.optimize.working_columns import WorkingColumns

_SLACK = 1e-6  # a budget whose price is below this (relative) is tried without


class QPTask:
    """``min cᵀx + ½‖Eᵀx‖²  s.t. A x ≥ s, 0 ≤ x ≤ u``: the QP with ``x_j = scale ‖d_j‖|δ_j|``.

    ``scale = λ unit``, ``s = scale r``; the objective is that of the QP times ``scale unit``.
    """

    def __init__(
        self,
        columns: WorkingColumns,
        solver: WarmOSQP,
        r: PerMargin,
        lam: float,
        caps: Float[np.ndarray, " columns"],
    ) -> None:
        self._columns, self._solver = columns, solver
        self._scale = lam * columns.unit
        self._s, self.caps = self._scale * r, caps
        self._start: Inner | None = None  # a feasible point, if solvers give none
        self._last: Point | None = None

    def _program(self) -> Program:
        return self._columns.program(np.where(self.caps > 0, self._scale * self.caps, 0.0))

    def solve(self) -> Inner:
        """By OSQP, warm; by Clarabel where that gives up; else a feasible point."""
        program = self._program()
        found = self._solver.solve(self._columns.ids, program, self._s)
        if found.status == "solved":
            return found
        again = solve_quadratic(program, self._s)
        again = replace(again, iterations=found.iterations + again.iterations)
        if again.status != "solved" and self._start is not None:
            return replace(padded(self._start, program), iterations=again.iterations)
        return again

    def finish(self, found: Inner) -> Point:
        """By the equations of the active set.

        Where the pivots do not settle: from the last round's solution, which is feasible still,
        or from a point of Clarabel, by the primal method. Where nothing does, the point is as
        the solver left it, but tidy.
        """
        program, s = self._program(), self._s
        exact, iterations = finish_qp(program, s, guessed(program, s, found)), 0
        solver = found.solver
        if exact is None and self._last is not None:
            exact, solver = self._from_last_round(program), self._last.solver
        if exact is None:
            if found.solver != "clarabel":
                found, exact, iterations = self._nearer(program, found)
            solver = found.solver
            exact = exact or primal_qp(program, s, found.x, found.mu)
        if exact is None:
            x = tidied(program, s, found.x, guessed(program, s, found))
            self._last = None
            return Point(x, found.mu, x @ self._columns.rows, solver, iterations)
        x, mu = exact[:2]
        self._last = Point(x, mu, x @ self._columns.rows, solver, iterations)
        return self._last

    def _from_last_round(self, program: Program) -> Exact | None:
        """The primal method from the last round's solution, on more columns now."""
        x = np.zeros(program.caps.size)
        x[: self._last.x.size] = self._last.x
        return primal_qp(program, self._s, x, self._last.mu)

    def _nearer(self, program: Program, found: Inner) -> tuple[Inner, Exact | None, int]:
        """A point of Clarabel if it has one, else ``found``; if it settles; its iterations."""
        better = solve_quadratic(program, self._s)
        if better.status != "solved":
            return found, None, better.iterations
        exact = finish_qp(program, self._s, guessed(program, self._s, better))
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
        """The dual value is ``μᵀs − ½‖ν‖²`` less what the caps cost."""
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
        )


class ConeTask:
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
        self._start: Inner | None = None

    def solve(self) -> Inner:
        """By Clarabel or SCS; else a feasible point, with the price of a budget that is tight."""
        program = self._columns.program(self.caps)
        found = solve_cone(program, self._r, self._epsilon, self._solver)
        if found.status == "solved" or self._start is None:
            return found
        start = padded(self._start, program)
        eta = max(float(program.cost @ start.x), 1e-300) / self._epsilon**2
        return replace(start, mu=eta * start.mu, eta=eta, iterations=found.iterations)

    def finish(self, found: Inner) -> Point:
        """By the equations of the active set, or the linear program if the budget is slack."""
        program, rows = self._columns.program(self.caps), self._columns.rows
        cost = float(program.cost @ found.x)
        if found.eta * self._epsilon**2 <= _SLACK * cost:
            linear = self._without_budget(program)
            if linear is not None and np.linalg.norm(linear.x @ rows) <= self._epsilon:
                return self._slack(linear, linear.x)
        eta = max(found.eta, _SLACK * cost / self._epsilon**2)
        # the cone program at η is the QP with everything times η
        start = guessed(program.scaled(eta), eta * self._r, replace(found, x=eta * found.x))
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

    def _without_budget(self, program: Program) -> Inner | None:
        """A cheapest point that meets the margins, and their prices."""
        linear = solve_linear(program.margins, self._r, program.caps, program.cost)
        return linear if linear.status == "solved" else None

    def _slack(self, linear: Inner, x: PerColumn) -> Point:
        """A point of the linear program, with its multipliers."""
        nothing = np.zeros(self._columns.rows.shape[1])
        return Point(x, linear.mu, nothing, linear.solver, linear.iterations)

    def repair(self) -> str:
        """By columns that bring the least norm below ε."""
        if self._start is not None:
            return "failed"
        found = meet_budget(self._columns, self._r, self.caps, self._epsilon)
        self._start = found.point
        return found.status

    def outcome(self, point: Point, costs: Float[np.ndarray, " columns"]) -> Outcome:
        """The dual value is ``μᵀr − ε‖ν‖`` less what the caps cost."""
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
        )
