"""Cost and memory of the correlation accumulators at SAE sparsity, against dense sums.

``python -m benchmarks.bench_statistics [--tiny | --quick]`` prints a table, writes
``results/benchmarks/statistics.csv`` and fails if a required ratio is missed.
"""

import sys
import time
import tracemalloc
from collections.abc import Callable

import numpy as np
import torch

from benchmarks.options import chosen_size
from benchmarks.table import Line, at_least, at_most, report
from steering_core.corrsteer.accumulate import Accumulator
from steering_core.corrsteer.scores import PooledStatistic
from steering_core.statistics.correlation import StreamingCorrelation

N_FEATURES, ACTIVE = 16_384, 70
BATCHES = (4, 8, 32, 128)
JUDGED_BATCH = 8  # the batch size of the published runs
REQUIRED_SPEEDUP = 10.0
ALLOWED_GROWTH = 1.01
STORED = 8  # different batches, which a run repeats


class DenseSums:
    """The minimal published form: dense float64 sums of x, x² and x·y."""

    def __init__(self, n_features: int):
        self.x, self.xx, self.xy = np.zeros((3, n_features))

    def update(self, values: np.ndarray, labels: np.ndarray) -> None:
        """Add ``values`` (n, n_features) with ``labels`` (n,)."""
        values = values.astype(np.float64)
        self.x += values.sum(axis=0)
        self.xx += (values**2).sum(axis=0)
        self.xy += (values * labels[:, None]).sum(axis=0)


def make_batch(rng: np.random.Generator, size: int) -> tuple[np.ndarray, ...]:
    """Return CSR arrays and labels of ``size`` samples; low features are active more often."""
    weight = 1.0 / np.arange(10, N_FEATURES + 10)
    keys = rng.exponential(size=(size, N_FEATURES)) / weight
    indices = np.sort(np.argpartition(keys, ACTIVE, axis=1)[:, :ACTIVE], axis=1).ravel()
    values = rng.exponential(size=indices.size).astype(np.float32)
    labels = rng.integers(0, 2, size).astype(np.float64)
    return np.arange(size + 1) * ACTIVE, indices, values, labels


def to_dense(batch: tuple[np.ndarray, ...]) -> np.ndarray:
    indptr, indices, values, labels = batch
    dense = np.zeros((labels.size, N_FEATURES), dtype=np.float32)
    dense[np.repeat(np.arange(labels.size), np.diff(indptr)), indices] = values
    return dense


def seconds(update: Callable[[int], None], n_batches: int) -> float:
    """Return the time of ``n_batches`` calls of ``update`` with the number of a stored batch."""
    start = time.perf_counter()
    for step in range(n_batches):
        update(step % STORED)
    return time.perf_counter() - start


def compare(size: int, samples: int, repeats: int) -> Line:
    """Return the best time of ``repeats`` alternating runs over ``samples`` samples.

    The samples come in batches of ``size``. A run folds our queue many times and reads the result.
    """
    rng = np.random.default_rng(size)
    batches = [make_batch(rng, size) for _ in range(STORED)]
    matrices = [to_dense(batch) for batch in batches]
    sparse, dense = StreamingCorrelation(N_FEATURES), DenseSums(N_FEATURES)
    steps = samples // size
    sparse_s, dense_s = [], []
    for _ in range(repeats):
        start = time.perf_counter()
        seconds(lambda step: sparse.update_sparse(*batches[step]), steps)
        sparse.result()
        sparse_s.append(time.perf_counter() - start)
        dense_s.append(seconds(lambda step: dense.update(matrices[step], batches[step][3]), steps))
    ours, reference = (min(spent) / (steps * size) * 1e6 for spent in (sparse_s, dense_s))
    name = f"correlation update, {ACTIVE} of {N_FEATURES} active, batch {size} / dense float64"
    note = f"per sample, over {steps * size}"
    if size == JUDGED_BATCH:
        return at_least(name, ours, reference, REQUIRED_SPEEDUP, note, "us")
    return Line(name, ours, reference, reference / ours, note=note, unit="us")


def from_dense(size: int, samples: int, repeats: int) -> Line:
    """Do the same for dense float32 tensors, as in selection; non-zero values are found first.

    On a GPU the search runs there. Here it is one pass over all numbers, against three for the
    dense sums.
    """
    rng = np.random.default_rng(size)
    batches = [make_batch(rng, size) for _ in range(STORED)]
    matrices = [to_dense(batch) for batch in batches]
    tensors = [torch.from_numpy(matrix) for matrix in matrices]
    labels = [batch[3] for batch in batches]
    ours, dense = Accumulator(N_FEATURES, PooledStatistic(), histogram=False), DenseSums(N_FEATURES)
    steps = samples // size
    ours_s, dense_s = [], []
    for _ in range(repeats):
        start = time.perf_counter()
        seconds(lambda step: ours.update(tensors[step], labels[step] > 0.5), steps)
        ours.correlation.result()
        ours_s.append(time.perf_counter() - start)
        dense_s.append(seconds(lambda step: dense.update(matrices[step], labels[step]), steps))
    value, reference = (min(spent) / (steps * size) * 1e6 for spent in (ours_s, dense_s))
    return Line(
        f"accumulator from a dense tensor, batch {size} / dense float64",
        value,
        reference,
        reference / value,
        note=f"per sample, over {steps * size}; on the CPU",
        unit="us",
    )


def peak_memory(n_samples: int, size: int = JUDGED_BATCH) -> int:
    """Return the peak of allocated bytes while ``n_samples`` samples are accumulated and read."""
    batches = [make_batch(np.random.default_rng(0), size) for _ in range(8)]
    tracemalloc.start()
    accumulator = StreamingCorrelation(N_FEATURES)
    for step in range(n_samples // size):
        accumulator.update_sparse(*batches[step % len(batches)])
    accumulator.result()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def main() -> int:
    size = chosen_size(__doc__)
    samples, repeats = {"tiny": (128, 1), "quick": (4_096, 4)}.get(size, (16_384, 5))
    lines = [compare(batch, samples, repeats) for batch in BATCHES]
    lines.append(from_dense(JUDGED_BATCH, samples // 4, repeats))
    few, many = (80, 800) if size == "tiny" else (1_000, 100_000)
    lines.append(
        at_most(
            f"memory of the correlation, {many} samples / {few}",
            peak_memory(many) / 1e6,
            peak_memory(few) / 1e6,
            ALLOWED_GROWTH,
            unit="MB",
        )
    )
    heading = f"{N_FEATURES} features, perf_counter"
    return report(lines, "statistics", heading, judged=size != "tiny")


if __name__ == "__main__":
    sys.exit(main())
