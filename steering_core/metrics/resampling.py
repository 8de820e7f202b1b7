"""Sums of samples over bootstrap resamples.

The intervals of a table mostly have the same seed and as many examples, hence the same draws. So
it is kept how often each resample draws each example, a byte each: the next interval weights its
values with that and draws nothing.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Float, UInt8

# Counts kept of one seed and number of examples; more of them are drawn for every interval.
_KEPT = 2**25
# Counts in a block: bounds the memory, not the result.
_AT_ONCE = 2**16

Counts = UInt8[np.ndarray, "block n"]


def resampled_sums(
    samples: Sequence[Float[np.ndarray, " n"]], *, seed: int, n_resamples: int
) -> Float[np.ndarray, "samples resamples"]:
    """Return the sum of each sample in every resample of the n >= 1 examples.

    All samples are resampled together. The draws are those of ``scipy.stats.bootstrap`` with
    ``rng=np.random.default_rng(seed)``.

    Args:
        samples: one number an example each.
        seed: of the draws.
        n_resamples: number of resamples.
    """
    n = samples[0].size
    draw = _kept if n * n_resamples <= _KEPT else _drawn
    sums, start = np.empty((len(samples), n_resamples)), 0
    for block in draw(n, seed, n_resamples):
        end, times = start + len(block), block.astype(np.float64)
        for row, sample in zip(sums, samples, strict=True):
            # Not a product of BLAS, whose last digits may depend on the number of threads.
            row[start:end] = np.einsum("ij,j->i", times, sample)
        start = end
    return sums


def _drawn(n: int, seed: int, n_resamples: int) -> Iterator[Counts]:
    """Yield how often each resample draws each example, some resamples at a time."""
    rng = np.random.default_rng(seed)
    step = max(1, _AT_ONCE // n)
    for start in range(0, n_resamples, step):
        rows = min(step, n_resamples - start)
        drawn = rng.integers(0, n, (rows, n))
        drawn += n * np.arange(rows)[:, None]
        # A byte is enough: beyond n = 255 so many draws of one example do not happen.
        yield np.bincount(drawn.ravel(), minlength=rows * n).astype(np.uint8).reshape(rows, n)


@lru_cache(maxsize=4)
def _kept(n: int, seed: int, n_resamples: int) -> tuple[Counts, ...]:
    return tuple(_drawn(n, seed, n_resamples))
