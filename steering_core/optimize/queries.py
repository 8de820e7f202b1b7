"""From arguments of a query to solutions with a status: what the programs of a path share."""

from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Int

from steering_core.optimize.checks import as_vector, match, tolerated
from steering_core.optimize.dictionary import Dictionary
from steering_core.optimize.solution import (
    FAILED,
    INACCURATE,
    INFEASIBLE,
    OPTIMAL,
    SATISFIED,
    Program,
    Solutions,
)

if TYPE_CHECKING:
    from steering_core.optimize.path import SteeringPath

_CHUNK = 1 << 16


class PathRangeError(ValueError):
    """A query lies beyond the fitted range of a path that has no decoder to go on with."""


def fits(dictionary: Dictionary, weight: Float[np.ndarray, " d_model"]) -> None:
    """Check the length of a probe weight.

    Raises:
        ValueError: naming ``probe_weight``.
    """
    if weight.size != dictionary.d_model:
        raise ValueError(
            f"probe_weight has {weight.size} values, the decoder's rows {dictionary.d_model}."
        )


def queries(
    shortfall: Any, name: str, parameter: Float[np.ndarray, " m"], tolerance: float
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Shortfall and parameter of one length.

    Raises:
        ValueError: naming ``shortfall``, the parameter ``name`` or ``tolerance``.
    """
    tolerated(tolerance)
    shortfall = as_vector("shortfall", shortfall)
    if shortfall.size == 1 and parameter.size > 1:
        shortfall = match("shortfall", shortfall, parameter.size)
    return shortfall, match(name, parameter, shortfall.size)


def codes(
    shortfall: Float[np.ndarray, " n"],
    feasible: Bool[np.ndarray, " n"] | bool,
    reached: Bool[np.ndarray, " n"],
) -> Int[np.ndarray, " n"]:
    """Statuses before any certificate; ``reached``: whether the path goes that far."""
    code = np.where(feasible, np.where(reached, OPTIMAL, FAILED), INFEASIBLE)
    return np.where(shortfall <= 0, SATISFIED, code).astype(np.uint8)


def certified(
    path: "SteeringPath",
    program: Program,
    shortfall: Float[np.ndarray, " n"],
    position: Float[np.ndarray, " n"],
    parameter: Float[np.ndarray, " n"],
    code: Int[np.ndarray, " n"],
    tolerance: float,
) -> Solutions:
    """The solutions, in ``code`` too: ``inaccurate`` where gap or miss exceed ``tolerance``."""
    position = np.where(code == OPTIMAL, position, np.nan)
    position[code == SATISFIED] = 0.0
    solutions = Solutions(path, program, shortfall, position, parameter, code)
    for start in range(0, code.size, _CHUNK):  # in chunks: memory stays small
        part = slice(start, start + _CHUNK)
        found = solutions[part]
        good = (np.abs(found.relative_gap) <= tolerance) & (found.miss <= tolerance)
        code[part] = np.where((code[part] == OPTIMAL) & ~good, INACCURATE, code[part])
    return solutions
