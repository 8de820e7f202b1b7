"""Speed and memory of the optimiser against the textbook formulation, as ratios in one run.

``python -m benchmarks.bench_optimize [--quick]`` writes ``results/benchmarks/optimize.csv``.
"""

import argparse
import resource
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from benchmarks.table import Line, report
from steering_core.optimize.path import SteeringPath
from steering_core.optimize.reference import solve_reference
from steering_core.optimize.working_set import WorkingSet

LAM, TAU_SPREAD = 1.0, (0.5, 6.0)  # shortfalls are uniform in this range
CONES = 10  # inputs of the second-order cone program
MAX_MEMORY_GB = 2.0
REFERENCE_TOLERANCE = 1e-4  # OSQP as CVXPY sets it up stops at 1e-5; its objectives are as good
T = TypeVar("T")


class Table:
    """Rows of the result; goals are judged on the full dictionary only."""

    def __init__(self, judged: bool) -> None:
        self.lines: list[Line] = []
        self._judged = judged

    def add(
        self, what: str, value: float, unit: str, goal: str = "", met: bool | None = None
    ) -> None:
        """Append and print a row; ``times`` is the unit of what is faster by so much."""
        ratio = float(value) if unit == "times" else None
        verdict = bool(met) if self._judged and met is not None else None
        self.lines.append(Line(what, float(value), None, ratio, goal, verdict, unit=unit))
        print(f"{what:68s} {value:12.5g} {unit:8s} {goal}", flush=True)


def timed(run: Callable[[], T]) -> tuple[float, T]:
    """Seconds of one call, and its result."""
    start = time.perf_counter()
    result = run()
    return time.perf_counter() - start, result


def dictionary(d_sae: int, d_model: int, k: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Unit random rows (float32) and k probes, each a noisy combination of 40 rows."""
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
    """Columns of the reference: half by a random activation, half by relevance, as published."""
    activation = np.random.default_rng(1).random(len(decoder))
    relevance = np.abs(decoder @ probes.T.astype(np.float32)).max(axis=1)
    half = size // 2
    return np.union1d(np.argsort(-activation)[:half], np.argsort(-relevance)[:half])


def bench_path(table: Table, shape: tuple[int, int], columns: int, n: int, n_reference: int):
    decoder, probes = dictionary(*shape)
    weight, shortfall = probes[0], np.random.default_rng(2).uniform(*TAU_SPREAD, n)

    start = time.perf_counter()
    path = SteeringPath.fit(decoder, weight)
    solved = path.qp(shortfall, LAM)
    certificates = solved.relative_gap, solved.dual_violation
    mine = time.perf_counter() - start
    table.add("path: fit and all queries of the QP", mine, "s")
    table.add(
        "path: worst relative gap",
        np.abs(certificates[0]).max(),
        "",
        "<= 1e-8",
        np.abs(certificates[0]).max() <= 1e-8,
    )
    table.add("path: worst dual violation", certificates[1].max(), "")
    table.add("path: knots", path.knots.s.size, "")

    chosen = prefiltered(decoder, probes, columns)
    few = decoder[chosen].astype(float)
    seconds, ratio = [], []
    for i in range(n_reference):
        start = time.perf_counter()
        reference = solve_reference(few, weight, shortfall[i], lam=LAM, solver="OSQP")
        seconds.append(time.perf_counter() - start)
        ratio.append(solved.objective[i] / reference.objective)
        print(f"  reference input {i}: {seconds[-1]:.1f} s {reference.status}", flush=True)
    total = np.mean(seconds) * n
    table.add(
        f"reference: CVXPY and OSQP, {chosen.size} columns, per input ({n_reference} run)",
        np.mean(seconds),
        "s",
    )
    table.add(
        f"path against reference, {n} inputs (extrapolated)",
        total / mine,
        "times",
        ">= 1000",
        total / mine >= 1000,
    )
    table.add(
        "objective, path / reference (worst)",
        max(ratio),
        "",
        "<= 1",
        max(ratio) <= 1 + REFERENCE_TOLERANCE,
    )
    own = SteeringPath.fit(few, weight).qp(shortfall[:n_reference], LAM).objective
    table.add(
        "objective on the same columns, path / reference (worst)",
        max(own / (solved.objective[:n_reference] / np.array(ratio))),
        "",
    )

    some = path.qp(np.random.default_rng(3).uniform(*TAU_SPREAD, 2000), LAM)
    start = time.perf_counter()
    vectors = some.vector
    rate = len(vectors) / (time.perf_counter() - start)
    table.add("residual vectors expanded", rate, "per s", ">= 5000", rate >= 5000)

    many = np.random.default_rng(4).uniform(-TAU_SPREAD[1], TAU_SPREAD[1], 1_000_000)
    took, _ = timed(lambda: path.qp(many, LAM))
    table.add("coordinates of 1 000 000 inputs, certified", took, "s", "<= 2", took <= 2)
    tracemalloc.start()
    path.qp(many, LAM)
    megabytes = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    table.add("coordinates of 1 000 000 inputs, peak of new memory", megabytes, "MB", "<= 100",
              megabytes <= 100)  # fmt: skip

    start = time.perf_counter()
    far = path.qp(shortfall, 100 * LAM)
    table.add(
        "path: extended a hundredfold (lambda = 100), all queries", time.perf_counter() - start, "s"
    )
    table.add("path: knots then", path.knots.s.size, "")
    gap = np.abs(far.relative_gap).max()
    table.add("path: worst relative gap then", gap, "", "<= 1e-8", gap <= 1e-8)


def bench_working_set(
    table: Table, shape: tuple[int, int], columns: int, n: int, n_reference: int, k: int = 5
):
    decoder, probes = dictionary(*shape, k)
    shortfall = np.random.default_rng(2).uniform(0.5, 3.0, (n, k))
    working_set = WorkingSet(decoder, probes)
    start = time.perf_counter()
    working_set.qp(shortfall[:1], LAM)
    table.add(f"working set, k = {k}: first input (cold)", time.perf_counter() - start, "s")
    start = time.perf_counter()
    solved = working_set.qp(shortfall[1:], LAM)
    warm = (time.perf_counter() - start) / (n - 1)
    table.add(f"working set, k = {k}, full dictionary, warm, per input", warm, "s")
    gap = np.abs(solved.relative_gap).max()
    table.add("working set: worst relative gap", gap, "", "<= 1e-5", gap <= 1e-5)
    cone = working_set.socp(shortfall[:CONES], 2.0 * solved.residual_norm.max())
    gap = np.abs(cone.relative_gap).max()
    met = bool(cone.solved.all()) and gap <= 1e-5
    table.add(f"working set: worst relative gap, SOCP, {CONES} inputs", gap, "", "<= 1e-5", met)
    table.add("working set: OSQP iterations, mean, warm", solved.iterations.mean(), "")
    cold_set = WorkingSet(decoder, probes, warm=False)
    cold_set.qp(shortfall[:1], LAM)
    cold = cold_set.qp(shortfall[1 : min(n, 6)], LAM)
    table.add("working set: OSQP iterations, mean, cold", cold.iterations.mean(), "")

    chosen = prefiltered(decoder, probes, columns)
    few = decoder[chosen].astype(float)
    seconds, ratio = [], []
    for i in range(n_reference):
        start = time.perf_counter()
        reference = solve_reference(few, probes, shortfall[1 + i], lam=LAM, solver="OSQP")
        seconds.append(time.perf_counter() - start)
        ratio.append(solved.objective[i] / reference.objective)
        print(f"  reference input {i}: {seconds[-1]:.1f} s {reference.status}", flush=True)
    gain = np.mean(seconds) / warm
    table.add(
        f"reference, k = {k}, {chosen.size} columns, per input ({n_reference} run)",
        np.mean(seconds),
        "s",
    )
    table.add(
        f"working set against reference, k = {k}, per input", gain, "times", ">= 20", gain >= 20
    )
    table.add(
        f"objective, working set / reference, k = {k} (worst)",
        max(ratio),
        "",
        "<= 1",
        max(ratio) <= 1 + REFERENCE_TOLERANCE,
    )


def peak_mb() -> float:
    """Peak resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def memory_alone(shape: tuple[int, int], n: int) -> float:
    """Peak memory in GB of a process that only fits the path and solves n inputs."""
    code = (
        "import numpy as np\n"
        "from benchmarks.bench_optimize import *\n"
        f"decoder, probes = dictionary({shape[0]}, {shape[1]})\n"
        f"r = np.random.default_rng(2).uniform(*TAU_SPREAD, {n})\n"
        "path = SteeringPath.fit(decoder, probes[0])\n"
        "path.qp(r, LAM).vector\n"
        "print(peak_mb() / 1e3)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small dictionary, in seconds")
    quick = parser.parse_args().quick
    shape, columns = ((2048, 128), 400) if quick else ((16384, 2304), 2000)
    table = Table(judged=not quick)
    gigabytes = memory_alone(shape, 1000)
    table.add(
        "path: peak memory of a process of its own",
        gigabytes,
        "GB",
        "< 2",
        gigabytes < MAX_MEMORY_GB,
    )
    bench_path(table, shape, columns, 1000, 3)
    bench_working_set(table, shape, columns, 20 if quick else 40, 3)
    judged = "" if not quick else ", too small to be judged"
    return report(table.lines, "optimize", f"d_sae {shape[0]}, d_model {shape[1]}{judged}")


if __name__ == "__main__":
    sys.exit(main())
