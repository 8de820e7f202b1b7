"""The methods that solve a program, and when each of them solves it."""

from dataclasses import dataclass
from typing import Literal

Program = Literal["qp", "socp"]
Mode = Literal["static", "adaptive", "shared"]


@dataclass(frozen=True)
class Solved:
    """A program and when it is solved.

    ``static``: for each input, at its last prompt token, and that vector is added at every
    position steered. ``adaptive``: anew at every position steered. ``shared``: once, for the
    validation row outside the target class that is furthest from the margin; every input gets
    that vector.
    """

    program: Program
    mode: Mode


_METHODS = {
    "qp_optimal": Solved("qp", "static"),
    "qp_adaptive": Solved("qp", "adaptive"),
    "qp_shared": Solved("qp", "shared"),
    "convex_optimal": Solved("socp", "static"),
    "socp_adaptive": Solved("socp", "adaptive"),
    "socp_shared": Solved("socp", "shared"),
}


def is_program(method: str) -> bool:
    """Whether ``method`` solves a program."""
    return method in _METHODS


def program_of(method: str) -> Program:
    """Return the program that ``method`` solves.

    Raises:
        ValueError: naming ``method``, if it solves none.

    """
    return _solved(method).program


def mode_of(method: str) -> Mode:
    """Return when ``method`` solves its program.

    Raises:
        ValueError: naming ``method``, if it solves none.

    """
    return _solved(method).mode


def is_adaptive(method: str) -> bool:
    """Whether ``method`` solves a program anew at every position."""
    return is_program(method) and mode_of(method) == "adaptive"


def solves_once(method: str) -> bool:
    """Whether ``method`` solves a program, and not anew at every position."""
    return is_program(method) and not is_adaptive(method)


def _solved(method: str) -> Solved:
    if method not in _METHODS:
        raise ValueError(f"method: {method} is not a program")
    return _METHODS[method]
