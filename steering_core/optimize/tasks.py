"""One input's program on the working columns: how to solve, finish, repair and certify it."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float
from scipy.optimize import nnls

from steering_core.optimize.active_set import finish_cone, finish_qp, guess, tidied
from steering_core.optimize.inner import (
    ConeSolver,
    Inner,
    WarmOSQP,
    solve_cone,
    solve_linear,
    solve_quadratic,
)
from steering_core.optimize.outcome import Outcome
from steering_core.optimize.working_columns import WorkingColumns

_FIRST = 64  # columns to begin with
_TOWARDS = 128  # columns a round while looking for a feasible point
_PAYS = -1e-9


@dataclass(frozen=True)
class Point:
    """Coefficients and multipliers; ``nu`` belongs to the residual vector."""

    x: Float[np.ndarray, " n"]
    mu: Float[np.ndarray, " k"]
    nu: Float[np.ndarray, " d_model"]


class Task(Protocol):
    """What the rounds of the working set need from a program."""

    caps: Float[np.ndarray, " columns"]

    def solve(self) -> Inner:
        """Solve approximately on the working columns."""

    def finish(self, found: Inner) -> Point:
        """Make it exact."""

    def repair(self) -> str:
        """Find columns that make the program feasible: ``"grown"``, else the final status."""

    def outcome(self, point: Point, costs: Float[np.ndarray, " columns"]) -> Outcome:
        """Values and certificate, given the reduced costs of all columns."""


class QPTask:
    """``min 1ᵀx + ½‖Eᵀx‖²  s.t. A x ≥ λ r, 0 ≤ x ≤ λ c``: the QP with ``x = λ|δ|``."""

    def __init__(
        self, columns: WorkingColumns, solver: WarmOSQP, r: np.ndarray, lam: float, caps: np.ndarray
    ) -> None:
        self._columns, self._solver, self._lam = columns, solver, lam
        self._s, self._limits = lam * r, caps
        self.caps = np.where(caps > 0, lam * caps, 0.0)

    def solve(self) -> Inner:
        """By OSQP, warm; by Clarabel where that gives up."""
        program = self._columns.program(self.caps)
        found = self._solver.solve(self._columns.ids, program, self._s)
        return found if found.status == "solved" else solve_quadratic(program, self._s)

    def finish(self, found: Inner) -> Point:
        """By the equations of the active set."""
        program = self._columns.program(self.caps)
        start = guess(program, self._s, found.x, found.mu)
        exact = finish_qp(program, self._s, start)
        if exact is None:  # too rough a start for the pivots
            better = solve_quadratic(program, self._s)
            if better.status == "solved":
                found, start = better, guess(program, self._s, better.x, better.mu)
                exact = finish_qp(program, self._s, start)
        x, mu = exact[:2] if exact else (tidied(program, self._s, found.x, start), found.mu)
        return Point(x, mu, x @ self._columns.rows)

    def repair(self) -> str:
        """By the linear program over the full dictionary."""
        return make_feasible(self._columns, self._s, self.caps)

    def outcome(self, point: Point, costs: np.ndarray) -> Outcome:
        """The dual value is ``(μᵀs − ½‖ν‖²)/λ`` less what the caps cost."""
        certificate = self._columns.certify(costs, self.caps, point.x)
        square, shrink = float(point.nu @ point.nu), certificate.shrink
        dual = point.mu @ self._s / shrink - 0.5 * square / shrink**2 - certificate.capped
        coefficients = np.minimum(point.x / self._lam, self._limits[self._columns.ids])
        return Outcome(
            "optimal",
            self._columns.delta(coefficients),
            (float(point.x.sum()) + 0.5 * square) / self._lam,
            float(dual) / self._lam,
            certificate.violation,
            np.sqrt(square) / self._lam,
            float((self._s - self._columns.margins @ point.x).max() / self._s.max()),
        )


class ConeTask:
    """``min 1ᵀx  s.t. A x ≥ r, ‖Eᵀx‖ ≤ ε, 0 ≤ x ≤ c``."""

    def __init__(
        self,
        columns: WorkingColumns,
        solver: ConeSolver,
        r: np.ndarray,
        epsilon: float,
        caps: np.ndarray,
    ) -> None:
        self._columns, self._solver = columns, solver
        self._r, self._epsilon, self.caps = r, epsilon, caps

    def solve(self) -> Inner:
        """By Clarabel or SCS."""
        program = self._columns.program(self.caps)
        return solve_cone(program, self._r, self._epsilon, self._solver)

    def finish(self, found: Inner) -> Point:
        """By the equations of the active set, or the linear program if the budget is slack."""
        program, rows = self._columns.program(self.caps), self._columns.rows
        if found.eta * self._epsilon**2 <= 1e-6 * found.x.sum():
            linear = solve_linear(program.margins, self._r, program.caps)
            if linear.status == "solved" and np.linalg.norm(linear.x @ rows) <= self._epsilon:
                return Point(linear.x, linear.mu, np.zeros(rows.shape[1]))
        x = found.x
        if found.eta > 0:
            eta = found.eta  # the cone program at η is the QP with everything times η
            start = guess(program.scaled(eta), eta * self._r, eta * found.x, found.mu)
            exact = finish_cone(program, self._r, self._epsilon, eta, start)
            if exact:
                scaled, mu, eta = exact
                return Point(np.minimum(scaled / eta, program.caps), mu, scaled @ rows)
            x = tidied(program, self._r, x, start)
        return Point(x, found.mu, found.eta * (x @ rows))

    def repair(self) -> str:
        """By columns that bring the least norm below ε; infeasible if none does."""
        columns = self._columns
        if self._epsilon < (1 - 1e-12) * least_free_norm(columns.directions, self._r):
            return "infeasible"
        if columns.ids.size == 0 or not _reaches(columns, self._r, self.caps):
            return make_feasible(columns, self._r, self.caps)
        added = False
        while True:
            found = solve_cone(columns.program(self.caps), self._r, None, self._solver)
            if found.status != "solved":
                return "failed"
            if found.eta <= self._epsilon:
                return "grown" if added else "failed"
            nu = found.x @ columns.rows
            costs = columns.reduced_costs(nu / np.linalg.norm(nu), found.mu, cost=0.0)
            new = columns.promising(costs, self.caps, -1e-7, _TOWARDS)
            if not columns.add(new):
                return "infeasible"
            added = True

    def outcome(self, point: Point, costs: np.ndarray) -> Outcome:
        """The dual value is ``μᵀr − ε‖ν‖`` less what the caps cost."""
        columns = self._columns
        certificate = columns.certify(costs, self.caps, point.x)
        norm = float(np.linalg.norm(point.x @ columns.rows))
        price = float(point.mu @ self._r) - self._epsilon * float(np.linalg.norm(point.nu))
        margin = float((self._r - columns.margins @ point.x).max() / self._r.max())
        return Outcome(
            "optimal",
            columns.delta(point.x),
            float(point.x.sum()),
            price / certificate.shrink - certificate.capped,
            certificate.violation,
            norm,
            max(margin, norm / self._epsilon - 1.0),
        )


def make_feasible(
    columns: WorkingColumns, r: Float[np.ndarray, " k"], caps: Float[np.ndarray, " columns"]
) -> str:
    """Take in the support of the linear program and what its prices like best.

    Returns ``"grown"``, ``"infeasible"`` or ``"failed"``.
    """
    usable = np.flatnonzero(caps > 0)
    if usable.size == 0:
        return "infeasible"
    sign = np.where(usable < columns.d_sae, 1.0, -1.0)
    found = solve_linear(sign * columns.gains[:, usable % columns.d_sae], r, caps[usable])
    if found.status != "solved":
        return found.status
    gain = found.mu @ columns.gains
    costs = np.concatenate([1.0 - gain, 1.0 + gain])
    likely = columns.promising(costs, caps, np.inf, _FIRST)
    added = columns.add(np.union1d(usable[found.x > 0], likely))
    return "grown" if added else "failed"


def least_free_norm(
    directions: Float[np.ndarray, "k d_model"], r: Float[np.ndarray, " k"]
) -> float:
    """``min ‖v‖ s.t. W v ≥ r`` over all v (least distance programming, Lawson and Hanson)."""
    triangle = np.linalg.qr(directions.T, mode="r")  # same norms in k dimensions
    stacked = np.concatenate([triangle, r[None] / r.max()])
    target = np.zeros(stacked.shape[0])
    target[-1] = 1.0
    weight, distance = nnls(stacked, target)
    if distance <= 1e-12:
        return np.inf
    residual = stacked @ weight - target
    return float(r.max() * np.linalg.norm(residual[:-1]) / abs(residual[-1]))


def _reaches(columns: WorkingColumns, r: np.ndarray, caps: np.ndarray) -> bool:
    program = columns.program(caps)
    return solve_linear(program.margins, r, program.caps).status == "solved"
