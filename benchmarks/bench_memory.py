"""Peak memory of caching and of KL, which must not grow with the data.

``python -m benchmarks.bench_memory [--tiny | --quick]`` prints a table, writes
``results/benchmarks/memory.csv`` and fails if memory grows. Each peak is measured in its own
process, minus the memory of the process before the stage began.
"""

import resource
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.common import random_model, texts
from benchmarks.options import alone, chosen_size
from benchmarks.table import at_most, report
from steering_core.activations.cache import cache_activations
from steering_core.generation.intervention import Intervention, RowVectors
from steering_core.metrics.divergence import divergence
from steering_core.models.site import Site
from steering_core.models.tokens import tokenize

VOCABULARY = 256_000
#: Allowed growth with three times the data or more. The remaining growth comes from the allocators'
#: caches, the texts and the index of the Parquet file.
ALLOWED_GROWTH = 1.25


def peak_mb() -> float:
    """Return the largest resident memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def caching(n_texts: int, model: str, batch_tokens: int) -> float:
    """Cache every token of all layers; return the MB that this adds."""
    lm = random_model(model)
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
            batch_tokens=batch_tokens,
            positions="all",
        )
    return peak_mb() - before


def kl(n_texts: int, model: str, batch_tokens: int, vocabulary: int) -> float:
    """Compute the KL of texts with 62 new tokens; return the MB that this adds."""
    lm = random_model(model, vocabulary=vocabulary)
    rows = tokenize(lm.tokenizer, texts(n_texts, 63, 63), prepend_bos=True)
    vectors = np.random.default_rng(0).standard_normal((n_texts, lm.shape.d_model))
    before = peak_mb()
    divergence(
        lm,
        [row[:2] for row in rows],
        [row[2:] for row in rows],
        prepend_bos=True,
        intervention=Intervention({Site(13, "post", False, True): RowVectors(vectors)}),
        batch_tokens=batch_tokens,
    )
    return peak_mb() - before


def main() -> int:
    size = chosen_size(__doc__)
    tiny = size == "tiny"
    model = "tiny" if tiny else "quick"
    vocabulary, batch_tokens, rounds = (1024, 128, 1) if tiny else (VOCABULARY, 2048, 5)
    few = 2 * batch_tokens // 64  # two batches
    many = few * (3 if size == "quick" else 4)
    # The memory queued for the writer differs from run to run, by at most QUEUE_BYTES, and so does
    # the freed memory that the allocator keeps; hence medians.
    cached = {
        n: float(np.median([alone(caching, n, model, batch_tokens) for _ in range(rounds)]))
        for n in (4 * few, 4 * many)
    }
    compared = {n: alone(kl, n, model, batch_tokens, vocabulary) for n in (few, many)}
    logits = 2 * batch_tokens * vocabulary * 4 / 2**20
    lines = [
        at_most(
            f"caching {4 * many} texts / {4 * few} texts",
            cached[4 * many],
            cached[4 * few],
            ALLOWED_GROWTH,
            f"all layers, every token; medians of {rounds} processes",
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
            f"{batch_tokens} tokens, vocabulary {vocabulary}",
            unit="MB",
        ),
    ]
    return report(lines, "memory", f"{model} model, processes of their own", judged=not tiny)


if __name__ == "__main__":
    sys.exit(main())
