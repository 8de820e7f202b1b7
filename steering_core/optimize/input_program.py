"""What the rounds of the working set need from one input's program."""

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from jaxtyping import Float

from steering_core.optimize.active_set import ActiveSet, PerColumn, PerMargin, Program, guess
from steering_core.optimize.inner import Inner
from steering_core.optimize.outcome import Outcome
from steering_core.optimize.primal import independent


@dataclass(frozen=True)
class Point:
    """Coefficients of unit columns and multipliers; ``nu`` belongs to the residual vector.

    ``solver`` is the inner solver it was finished from, ``iterations`` what finishing took.
    """

    x: PerColumn
    mu: PerMargin
    nu: Float[np.ndarray, " d_model"]
    solver: str
    iterations: int = 0


class InputProgram(Protocol):
    """What the rounds of the working set need from a program."""

    caps: Float[np.ndarray, " columns"]

    def solve(self) -> Inner:
        """Solve approximately on the working columns."""

    def finish(self, found: Inner) -> Point:
        """Make it exact."""

    def repair(self) -> str:
        """Find a feasible point, on more columns maybe: ``"feasible"``, else the final status."""

    def outcome(self, point: Point, costs: Float[np.ndarray, " columns"]) -> Outcome:
        """Values and certificate, given the reduced costs of all columns."""


def guessed(program: Program, s: PerMargin, found: Inner) -> ActiveSet:
    """The active set of an approximate solution, its free columns independent."""
    active = guess(program, s, found.x, found.mu)
    return replace(active, free=independent(program, active, found.x))


def padded(start: Inner, program: Program) -> Inner:
    """A point on the columns of a program that came to have more of them."""
    x = np.zeros(program.caps.size)
    x[: start.x.size] = start.x
    return replace(start, x=x)
