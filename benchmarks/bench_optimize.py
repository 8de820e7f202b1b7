"""Speed and memory of the optimiser against the textbook formulation, as ratios in one run.

``python -m benchmarks.bench_optimize [--tiny | --quick]`` writes its table,
``results/benchmarks/optimize.csv``, row by row, so that an interrupted run keeps its measurements.
"""

import resource
import sys
import time
import tracemalloc

import numpy as np

from benchmarks.optimize_problem import (
    TAU_SPREAD,
    Table,
    dictionary,
    extended,
    no_worse,
    prefiltered,
    referenced,
    timed,
)
from benchmarks.options import alone, chosen_size
from benchmarks.table import report
from steering_core.optimize.path import SteeringPath
from steering_core.optimize.working_set.solver import WorkingSet

LAM, FAR = 1.0, 100.0
FAR_KNOTS = 600
CONES = 10  # inputs of the second-order cone program
TIGHT = 1.1  # the budget, in units of the norm of the QP's solution
MAX_MEMORY_GB = 2.0
GAP, WORKING_SET_GAP = 1e-8, 1e-5  # relative, certified


def bench_path(table: Table, shape: tuple[int, int], columns: int, n: int, n_reference: int):
    decoder, probes = dictionary(*shape)
    weight, shortfall = probes[0], np.random.default_rng(2).uniform(*TAU_SPREAD, n)
    few = prefiltered(decoder, probes, columns)
    for qp_lambda in (LAM, FAR):
        at = f"lambda {qp_lambda:g}"
        start = time.perf_counter()
        path = SteeringPath.fit(decoder, weight)
        solved = path.qp(shortfall, qp_lambda)
        gap, violation = np.abs(solved.relative_gap), solved.dual_violation
        mine = time.perf_counter() - start
        table.add(f"path, {at}: fit and all queries of the QP", mine, "s")
        table.add(f"path, {at}: knots", path.knots.s.size, "")
        table.add_at_most(f"path, {at}: worst relative gap", np.max(gap), "", GAP)
        table.add(f"path, {at}: worst dual violation", np.max(violation), "")
        if qp_lambda == LAM:  # a minute and more per input
            bench_reference(table, few, weight, shortfall, solved.objective, mine, n_reference)
        bench_cones(table, path, shortfall, solved.residual_norm, at)
        if qp_lambda == LAM:
            bench_queries(table, path)
    took, path = timed(lambda: extended(SteeringPath.fit(decoder, weight), FAR_KNOTS))
    seconds, solved = timed(lambda: path.qp(shortfall, path.knots.s[-1] / shortfall.max() * 0.999))
    what = f"path, {path.knots.s.size} knots"  # not solved for a λ of the reference
    table.add(f"{what}: fit and all queries of the QP", took + seconds, "s")
    worst = np.max(np.abs(solved.relative_gap))
    table.add_at_most(f"{what}: worst relative gap", worst, "", GAP)


def bench_reference(
    table: Table,
    few: np.ndarray,
    weight: np.ndarray,
    shortfall: np.ndarray,
    objective: np.ndarray,
    mine: float,
    n_reference: int,
):
    """Measure the textbook QP of some inputs on a prefiltered dictionary; ``mine`` is our time."""
    at, n = f"lambda {LAM:g}", len(shortfall)
    reference = referenced(few, weight, shortfall[:n_reference], LAM)
    ratio = reference.seconds * n / mine
    what = f"reference, {at}: CVXPY and OSQP, {len(few)} columns, per input ({n_reference} run)"
    table.add(what, reference.seconds, "s")
    what = f"path against reference, {at}, {n} inputs (extrapolated)"
    table.add(what, ratio, "times", ">= 1000", ratio >= 1000 and reference.optimal)
    no_worse(table, f"objective, {at}, path / reference (worst)",
             objective[:n_reference], reference, GAP)  # fmt: skip
    own = SteeringPath.fit(few, weight).qp(shortfall[:n_reference], LAM).objective
    no_worse(table, f"objective on the same columns, {at}, path / reference (worst)",
             own, reference, GAP)  # fmt: skip


def bench_cones(table: Table, path: SteeringPath, shortfall: np.ndarray, norm: np.ndarray, at: str):
    """Measure the SOCP with tight budgets, near the norms of the QP's solutions."""
    took, solved = timed(lambda: path.socp(shortfall, TIGHT * norm))
    table.add(f"path, {at}: all queries of the SOCP", took, "s")
    tight = np.max(np.abs(solved.residual_norm / (TIGHT * norm) - 1.0))
    table.add_at_most(f"path, {at}: SOCP, distance from its budget", tight, "", GAP)
    gap = np.max(np.abs(solved.relative_gap))
    table.add_at_most(f"path, {at}: SOCP, worst relative gap", gap, "", GAP)


def bench_queries(table: Table, path: SteeringPath):
    some = path.qp(np.random.default_rng(3).uniform(*TAU_SPREAD, 2000), LAM)
    took, vectors = timed(lambda: some.vector)
    rate = len(vectors) / took
    table.add("residual vectors expanded", rate, "per s", ">= 5000", rate >= 5000)
    many = np.random.default_rng(4).uniform(*TAU_SPREAD, 1_000_000)
    took, _ = timed(lambda: path.qp(many, LAM))
    table.add_at_most("coordinates of 1 000 000 inputs, certified", took, "s", 2)
    tracemalloc.start()
    path.qp(many, LAM)
    megabytes = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    what = "coordinates of 1 000 000 inputs, peak of new memory"
    table.add_at_most(what, megabytes, "MB", 100)


def bench_working_set(
    table: Table, shape: tuple[int, int], columns: int, n: int, n_reference: int, k: int = 5
):
    decoder, probes = dictionary(*shape, k)
    shortfall = np.random.default_rng(2).uniform(0.5, 3.0, (n, k))
    working_set = WorkingSet(decoder, probes)
    took, _ = timed(lambda: working_set.qp(shortfall[:1], LAM))
    table.add(f"working set, k = {k}: first input (cold)", took, "s")
    took, solved = timed(lambda: working_set.qp(shortfall[1:], LAM))
    warm = took / (n - 1)
    table.add(f"working set, k = {k}, full dictionary, warm, per input", warm, "s")
    gap = np.max(np.abs(solved.relative_gap))
    table.add_at_most("working set: worst relative gap", gap, "", WORKING_SET_GAP)

    epsilon = TIGHT * solved.residual_norm[:CONES]
    took, cone = timed(lambda: working_set.socp(shortfall[1 : 1 + CONES], epsilon))
    table.add(f"working set, k = {k}: SOCP, per input", took / CONES, "s")
    tight = np.max(np.abs(cone.residual_norm / epsilon - 1.0))
    table.add_at_most("working set: SOCP, distance from its budget", tight, "", WORKING_SET_GAP)
    gap = np.max(np.abs(cone.relative_gap))
    table.add_at_most(
        f"working set: worst relative gap, SOCP, {CONES} inputs", gap, "", WORKING_SET_GAP
    )
    bench_warmth(table, decoder, probes, shortfall[: min(n, 8)])

    few = prefiltered(decoder, probes, columns)
    reference = referenced(few, probes, shortfall[1 : 1 + n_reference], LAM)
    gain = reference.seconds / warm
    what = f"reference, k = {k}, {len(few)} columns, per input ({n_reference} run)"
    table.add(what, reference.seconds, "s")
    what = f"working set against reference, k = {k}, per input"
    table.add(what, gain, "times", ">= 20", gain >= 20 and reference.optimal)
    no_worse(table, f"objective, working set / reference, k = {k} (worst)",
             solved.objective[:n_reference], reference, WORKING_SET_GAP)  # fmt: skip


def bench_warmth(table: Table, decoder: np.ndarray, probes: np.ndarray, shortfall: np.ndarray):
    """Count OSQP iterations for the same inputs and columns, with and without warm starts.

    Each input is a small step from the last one, like the tokens of a text.
    """
    steps = np.random.default_rng(5).standard_normal(shortfall.shape)
    near = shortfall[0] * (1.0 + 0.02 * np.cumsum(steps, axis=0))
    means = {}
    for warm in (True, False):
        working_set = WorkingSet(decoder, probes, warm=warm)
        working_set.qp(near, LAM)  # adds its columns to the working set
        means[warm] = float(working_set.qp(near, LAM).iterations.mean())
        state = "warm" if warm else "cold"
        table.add(f"working set: OSQP iterations, mean, {state}", means[warm], "")
    ratio = means[True] / means[False]
    table.add_at_most("working set: OSQP iterations, warm / cold", ratio, "", 0.8)


def peak_mb() -> float:
    """Return the peak resident memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def memory(shape: tuple[int, int], n: int, qp_lambda: float, knots: int) -> float:
    """Fit the path and solve n inputs; return the peak memory of the process in GB."""
    decoder, probes = dictionary(*shape)
    r = np.random.default_rng(2).uniform(*TAU_SPREAD, n)
    path = extended(SteeringPath.fit(decoder, probes[0]), knots)
    _ = path.qp(r, qp_lambda).vector
    return peak_mb() / 1e3


def main() -> int:
    size = chosen_size(__doc__)
    large = ((16384, 2304), 2000, 40, 3)
    small = {"tiny": ((256, 16), 50, 12, 1), "quick": ((2048, 128), 400, 20, 3)}
    shape, columns, n, n_reference = small.get(size, large)
    judged = size not in small
    suffix = "" if judged else ", too small to be judged"
    heading = f"d_sae {shape[0]}, d_model {shape[1]}{suffix}"
    table = Table(judged, heading)
    for what, qp_lambda, knots in (("", LAM, 1), (f", {FAR_KNOTS} knots", FAR, FAR_KNOTS)):
        gigabytes = alone(memory, shape, 1000, qp_lambda, knots)
        what = f"path: peak memory of a process of its own{what}"
        table.add(what, gigabytes, "GB", "< 2", gigabytes < MAX_MEMORY_GB)
    bench_path(table, shape, columns, 1000, n_reference)
    bench_working_set(table, shape, columns, n, n_reference)
    return report(table.lines, "optimize", heading)


if __name__ == "__main__":
    sys.exit(main())
