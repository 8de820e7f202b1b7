"""Peak memory of caching and of KL, which must not grow with the data.

``python -m benchmarks.bench_memory [--quick]`` prints a table, writes
``results/benchmarks/memory.csv`` and fails if memory grows. Each peak is measured in its own
process, minus the memory of the process before the stage began.
"""

import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.common import arguments, random_model, texts
from benchmarks.table import at_most, report
from steering_core.activations.cache import cache_activations
from steering_core.generation.intervention import Intervention, RowVectors
from steering_core.metrics.divergence import divergence
from steering_core.models.site import Site
from steering_core.models.tokens import tokenize

BATCH_TOKENS = 2048
VOCABULARY = 256_000
ROUNDS = 5
#: Allowed growth with three times the data or more. The remaining growth comes from the allocators'
#: caches, the texts and the index of the Parquet file.
ALLOWED_GROWTH = 1.25


def peak_mb() -> float:
    """Return the largest resident memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def caching(n_texts: int) -> None:
    """Cache every token of all layers."""
    lm = random_model("quick")
    sites = [Site(layer, "post", False, True) for layer in range(lm.shape.n_layers)]
    examples = pd.DataFrame(
        {"example_id": [f"e{i}" for i in range(n_texts)], "text": texts(n_texts, 60, 60)}
    )
    before = peak_mb()
    with tempfile.TemporaryDirectory() as folder:
        cache_activations(
            lm,
            examples,
            sites,
            Path(folder) / "part.parquet",
            max_tokens=128,
            batch_tokens=BATCH_TOKENS,
            positions="all",
        )
    print(peak_mb() - before)


def kl(n_texts: int) -> None:
    """Compute the KL of texts with 62 new tokens, over a vocabulary of Gemma's size."""
    lm = random_model("quick", vocabulary=VOCABULARY)
    rows = tokenize(lm.tokenizer, texts(n_texts, 63, 63), prepend_bos=True)
    vectors = np.random.default_rng(0).standard_normal((n_texts, lm.shape.d_model))
    before = peak_mb()
    divergence(
        lm,
        [row[:2] for row in rows],
        [row[2:] for row in rows],
        prepend_bos=True,
        intervention=Intervention({Site(13, "post", False, True): RowVectors(vectors)}),
        batch_tokens=BATCH_TOKENS,
    )
    print(peak_mb() - before)


def peak_of(stage: str, n_texts: int) -> float:
    """Return the peak MB that ``stage`` adds in its own process."""
    command = [sys.executable, "-m", "benchmarks.bench_memory", stage, str(n_texts)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> int:
    few = 2 * BATCH_TOKENS // 64  # two batches
    many = few * (3 if arguments(__doc__).size == "quick" else 4)
    # The memory queued for the writer differs from run to run, by at most QUEUE_BYTES.
    cached = {
        n: float(np.median([peak_of("caching", n) for _ in range(ROUNDS)]))
        for n in (4 * few, 4 * many)
    }
    compared = {n: peak_of("kl", n) for n in (few, many)}
    logits = 2 * BATCH_TOKENS * VOCABULARY * 4 / 2**20
    lines = [
        at_most(
            f"caching {4 * many} texts / {4 * few} texts",
            cached[4 * many],
            cached[4 * few],
            ALLOWED_GROWTH,
            f"26 layers, every token; medians of {ROUNDS} processes",
            unit="MB",
        ),
        at_most(
            f"KL of {many} texts / {few} texts",
            compared[many],
            compared[few],
            ALLOWED_GROWTH,
            unit="MB",
        ),
        at_most(
            "KL / float32 logits of one batch, both passes",
            compared[many],
            logits,
            0.5,
            f"{BATCH_TOKENS} tokens, vocabulary {VOCABULARY}",
            unit="MB",
        ),
    ]
    return report(lines, "memory", "quick model, processes of their own")


if __name__ == "__main__":
    stages = {"caching": caching, "kl": kl}
    if sys.argv[1:] and sys.argv[1] in stages:
        stages[sys.argv[1]](int(sys.argv[2]))
    else:
        sys.exit(main())
