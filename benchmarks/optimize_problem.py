"""The problem, the table and the reference of the optimiser's benchmark."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from benchmarks.reference import solve_reference
from benchmarks.table import Line, write_lines
from steering_core.optimize.path import SteeringPath

TAU_SPREAD = (0.5, 6.0)  # shortfalls are uniform in this range
T = TypeVar("T")


class Table:
    """Rows of the result, written as soon as they are known; ``judged`` enables requirements."""

    def __init__(self, judged: bool, heading: str) -> None:
        self.lines: list[Line] = []
        self._judged, self._heading = judged, heading

    def add(
        self, what: str, value: float, unit: str, goal: str = "", met: bool | None = None
    ) -> None:
        """Append and print a row; the unit ``times`` marks a speed-up."""
        ratio = float(value) if unit == "times" else None
        verdict = bool(met) if self._judged and met is not None else None
        self.lines.append(Line(what, float(value), None, ratio, goal, verdict, unit=unit))
        write_lines(self.lines, "optimize", self._heading)
        print(f"{what:72s} {value:12.5g} {unit:8s} {goal}", flush=True)

    def add_at_most(self, what: str, value: float, unit: str, most: float) -> None:
        """Add a row whose value must not exceed ``most``; NaN does not meet this."""
        self.add(what, value, unit, f"<= {most:g}", bool(value <= most))


@dataclass(frozen=True)
class Referenced:
    """Times and objectives of the textbook formulation, after making its points feasible."""

    seconds: float
    objective: np.ndarray
    optimal: bool


def timed(run: Callable[[], T]) -> tuple[float, T]:
    """Return the seconds of one call, and its result."""
    start = time.perf_counter()
    result = run()
    return time.perf_counter() - start, result


def dictionary(d_sae: int, d_model: int, k: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Return random unit rows (float32), and k probes that are noisy combinations of 40 rows."""
    rng = np.random.default_rng(0)
    decoder = rng.standard_normal((d_sae, d_model), dtype=np.float32)
    decoder /= np.linalg.norm(decoder, axis=1, keepdims=True)
    probes = []
    for _ in range(k):
        rows = decoder[rng.choice(d_sae, 40, replace=False)].astype(float)
        noise = 0.3 * rng.standard_normal(d_model) / np.sqrt(d_model)
        probes.append(rng.random(40) @ rows + noise)
    return decoder, np.array(probes)


def prefiltered(decoder: np.ndarray, probes: np.ndarray, size: int) -> np.ndarray:
    """Return the columns of the reference: half by a random activation, the rest by relevance."""
    activation = np.random.default_rng(1).random(len(decoder))
    relevance = np.abs(decoder @ probes.T.astype(np.float32)).max(axis=1)
    relevance[np.argsort(-activation)[: size // 2]] = np.inf
    return decoder[np.sort(np.argsort(-relevance)[:size])].astype(float)


def referenced(
    decoder: np.ndarray, probes: np.ndarray, shortfall: np.ndarray, qp_lambda: float
) -> Referenced:
    """Solve the QP of each input by CVXPY and OSQP, without warm starts."""
    seconds, objective, optimal = [], [], True
    for i, r in enumerate(shortfall):
        took, found = timed(
            lambda r=r: solve_reference(decoder, probes, r, qp_lambda=qp_lambda, solver="OSQP")
        )
        seconds.append(took)
        objective.append(feasible_objective(decoder, probes, found.delta, r, qp_lambda))
        optimal &= found.status == "optimal"
        print(
            f"  reference input {i}, lambda {qp_lambda:g}: {took:.1f} s {found.status}", flush=True
        )
    return Referenced(float(np.mean(seconds)), np.array(objective), optimal)


def feasible_objective(
    decoder: np.ndarray,
    probes: np.ndarray,
    delta: np.ndarray,
    r: np.ndarray | float,
    qp_lambda: float,
) -> float:
    """Return the objective of the point made feasible: no negative part, scaled to all margins.

    Otherwise a point that misses a margin by 1e-5 would beat every point that meets all margins.
    """
    delta = np.maximum(delta, 0.0)
    vector = delta @ decoder
    delta, vector = (
        part * np.max(r / (np.atleast_2d(probes) @ vector)) for part in (delta, vector)
    )
    return float(delta.sum() + 0.5 * qp_lambda * vector @ vector)


def no_worse(
    table: Table, what: str, mine: np.ndarray, reference: Referenced, tolerance: float
) -> None:
    """Add the ratio of the objectives, which must be at most one plus the certified gap.

    A reference that is not optimal proves nothing.
    """
    worst = float(np.max(mine / reference.objective))
    met = reference.optimal and 0 < worst <= 1 + tolerance
    table.add(what, worst, "", f"<= 1 + {tolerance:g}", met)


def extended(path: SteeringPath, knots: int) -> SteeringPath:
    """Return the path with at least this many knots, or the complete path."""
    while path.knots.s.size < knots and not path.knots.complete:
        path.extend(float(path.knots.s[-1]) * 1.5 + 1e-3)
    return path
