"""Bootstrap intervals of means, ratios and perplexities over examples.

The method is the percentile bootstrap (Efron, 1979), as in ``scipy.stats.bootstrap``. The same seed
gives the same interval. Most intervals of a table share seed and number of examples, and so their
draws. The counts of these draws are kept, one byte each, and reused for the next interval.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped, UInt8
from scipy.stats import binomtest


@dataclass(frozen=True)
class Interval:
    """An estimate and its bootstrap interval.

    Attributes:
        mean: estimate on all examples used; None without examples.
        low: lower end; None without examples.
        high: upper end; None without examples.
        n: number of examples used.
    """

    mean: float | None
    low: float | None
    high: float | None
    n: int


UNDEFINED = Interval(None, None, None, 0)
#: Interval widths up to this are rounding errors.
_NO_WIDTH = 1e-12


def mean_interval(
    values: Shaped[np.ndarray, " n"],
    *,
    seed: int,
    confidence: float = 0.95,
    n_resamples: int = 2000,
    skip_undefined: bool = False,
) -> Interval:
    """Return the mean of ``values`` with its interval over examples.

    Without values the result is an :class:`Interval` of None. For a single value, or values that
    are all equal, both ends are the mean, because resampling cannot vary them.

    Args:
        values: one number per example; None counts as NaN.
        seed: seed of the resampling.
        confidence: level, between 0 and 1.
        n_resamples: number of bootstrap samples.
        skip_undefined: True to leave out NaNs; ``n`` then counts the other values.

    Raises:
        ValueError: if a value is infinite, or NaN without ``skip_undefined``, or an argument is
            out of range.
    """
    values = _vector(values, "values")
    undefined = np.isnan(values)
    if undefined.any():
        if not skip_undefined:
            raise ValueError(
                f"values has {undefined.sum()} NaN of {values.size}: pass skip_undefined=True to "
                "leave them out."
            )
        values = values[~undefined]
    if np.isinf(values).any():
        raise ValueError("values contains infinity.")
    _check_level(confidence, n_resamples)
    if values.size == 0:
        return UNDEFINED
    if (values == values[0]).all():
        return Interval(float(values[0]), float(values[0]), float(values[0]), values.size)
    means = resampled_sums([values], seed=seed, n_resamples=n_resamples)[0] / values.size
    low, high = _percentiles(means, confidence)
    return Interval(float(values.mean()), low, high, values.size)


def ratio_interval(
    numerators: Shaped[np.ndarray, " n"],
    denominators: Shaped[np.ndarray, " n"],
    *,
    seed: int,
    confidence: float = 0.95,
    n_resamples: int = 2000,
) -> Interval:
    """Return Σ numerators / Σ denominators with its interval over examples, resampled as pairs.

    An example with denominator zero has no effect and is left out; ``n`` counts the others. Without
    examples the result is an :class:`Interval` of None. With a single example, or with equal ratios
    everywhere, both ends are the estimate.

    Args:
        numerators: one number per example.
        denominators: one number >= 0 per example, in the same order.
        seed: seed of the resampling.
        confidence: level, between 0 and 1.
        n_resamples: number of bootstrap samples.

    Raises:
        ValueError: if the lengths differ, a number is not finite, a denominator is negative, or a
            denominator is zero while its numerator is not.
    """
    numerators = _vector(numerators, "numerators")
    denominators = _vector(denominators, "denominators")
    if numerators.shape != denominators.shape:
        raise ValueError(
            f"numerators and denominators differ in length: {numerators.size} and "
            f"{denominators.size}."
        )
    for name, values in (("numerators", numerators), ("denominators", denominators)):
        if not np.isfinite(values).all():
            raise ValueError(f"{name} contains NaN or infinity.")
    if (denominators < 0).any():
        raise ValueError("denominators contains a negative number.")
    if (numerators[denominators == 0] != 0).any():
        raise ValueError("numerators has a non-zero number where denominators is zero.")
    _check_level(confidence, n_resamples)
    used = denominators > 0
    numerators, denominators = numerators[used], denominators[used]
    if numerators.size == 0:
        return UNDEFINED
    estimate = float(numerators.sum() / denominators.sum())
    ratios = numerators / denominators
    if (ratios == ratios[0]).all():
        return Interval(estimate, estimate, estimate, numerators.size)
    above, below = resampled_sums([numerators, denominators], seed=seed, n_resamples=n_resamples)
    low, high = _percentiles(above / below, confidence)
    return Interval(estimate, low, high, numerators.size)


def share_interval(
    hits: Shaped[np.ndarray, " n"],
    trials: Shaped[np.ndarray, " n"],
    *,
    seed: int,
    confidence: float = 0.95,
    n_resamples: int = 2000,
) -> Interval:
    """Return Σ hits / Σ trials with its interval; the hits of an example are among its trials.

    This is :func:`ratio_interval`, except if all examples have the same share, as where all trials
    are hits or none is: see :func:`same_interval`.

    Args:
        hits: number of hits of each example, from 0 to its trials.
        trials: number of trials of each example.
        seed: seed of the resampling.
        confidence: level, between 0 and 1.
        n_resamples: number of bootstrap samples.

    Raises:
        ValueError: as :func:`ratio_interval`, or if there are more hits than trials.
    """
    found = ratio_interval(hits, trials, seed=seed, confidence=confidence, n_resamples=n_resamples)
    if (np.asarray(hits) > np.asarray(trials)).any() or (np.asarray(hits) < 0).any():
        raise ValueError("hits must lie between 0 and trials.")
    return same_interval(found, lowest=0.0, highest=1.0, confidence=confidence)


def change_interval(
    changes: Shaped[np.ndarray, " n"],
    trials: Shaped[np.ndarray, " n"],
    *,
    seed: int,
    confidence: float = 0.95,
    n_resamples: int = 2000,
) -> Interval:
    """Return Σ changes / Σ trials with its interval: the net share of trials that a change helps.

    This is :func:`ratio_interval`, except if all examples change by the same share, as where none
    changes: see :func:`same_interval`.

    Args:
        changes: of each example the trials that turn to a success, less those that turn to a
            failure.
        trials: number of trials of each example.
        seed: seed of the resampling.
        confidence: level, between 0 and 1.
        n_resamples: number of bootstrap samples.

    Raises:
        ValueError: as :func:`ratio_interval`, or if there are more changes than trials.
    """
    found = ratio_interval(
        changes, trials, seed=seed, confidence=confidence, n_resamples=n_resamples
    )
    if (np.abs(np.asarray(changes)) > np.asarray(trials)).any():
        raise ValueError("changes must lie between -trials and trials.")
    return same_interval(found, lowest=-1.0, highest=1.0, confidence=confidence)


def same_interval(
    found: Interval, *, lowest: float, highest: float, confidence: float = 0.95
) -> Interval:
    """Return ``found``, with wider ends if all its examples have the same value.

    Resampling then gives a width of zero, even for few examples. But n equal values leave room for
    others: by the exact bound (Clopper and Pearson, 1934) an example has this value with a
    probability of at least q = (α / 2)^(1 / n). The ends are the means where all other examples are
    ``lowest``, and where all are ``highest``: q value + (1 − q) lowest, and the same with highest.
    Each example counts once for any number of trials. Of a share of none or of all, this is the
    exact interval; of changes that are all from failure to success, it begins at 2q − 1.

    Args:
        found: mean of values, or ratio of sums, with its bootstrap interval.
        lowest: the least value that an example can have.
        highest: the largest.
        confidence: level 1 − α, between 0 and 1.
    """
    if found.n == 0 or found.high - found.low > _NO_WIDTH:
        return found
    others = 1.0 - float(binomtest(found.n, found.n).proportion_ci(confidence).low)
    return Interval(
        found.mean,
        found.mean - others * (found.mean - lowest),
        found.mean + others * (highest - found.mean),
        found.n,
    )


def perplexity_interval(
    nll_sum: Float[np.ndarray, " n"],
    n_tokens: Shaped[np.ndarray, " n"],
    *,
    seed: int,
    confidence: float = 0.95,
    n_resamples: int = 2000,
) -> Interval:
    """Return the perplexity exp(Σ nll / Σ tokens) of several texts, with its interval over texts.

    A text is resampled as a whole, because its tokens are not independent. Texts without tokens are
    left out.

    Args:
        nll_sum: negative log-likelihood of each text in nats, summed over its tokens.
        n_tokens: number of tokens of each text.
        seed: seed of the resampling.
        confidence: level, between 0 and 1.
        n_resamples: number of bootstrap samples.

    Raises:
        ValueError: as :func:`ratio_interval`.
        OverflowError: if the perplexity exceeds float64.
    """
    rate = ratio_interval(
        nll_sum, n_tokens, seed=seed, confidence=confidence, n_resamples=n_resamples
    )
    if rate.n == 0:
        return rate
    return Interval(math.exp(rate.mean), math.exp(rate.low), math.exp(rate.high), rate.n)


def _vector(values: Any, name: str) -> Float[np.ndarray, " n"]:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(f"{name} must have one dimension, got shape {values.shape}.")
    return values


def _check_level(confidence: float, n_resamples: int) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}.")
    if n_resamples < 1:
        raise ValueError(f"n_resamples must be at least 1, got {n_resamples}.")


def _percentiles(
    estimates: Float[np.ndarray, " resamples"], confidence: float
) -> tuple[float, float]:
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(estimates, [tail, 100 - tail])
    return float(low), float(high)


# Number of counts that are kept for a seed and number of examples. With more counts, every
# interval draws its own.
_KEPT = 2**25
# Number of counts in a block. Limits the memory and does not change the result.
_AT_ONCE = 2**16

Counts = UInt8[np.ndarray, "block n"]


def resampled_sums(
    samples: Sequence[Float[np.ndarray, " n"]], *, seed: int, n_resamples: int
) -> Float[np.ndarray, "samples resamples"]:
    """Return the sum of each sample in every resample of the n >= 1 examples.

    All samples are resampled together. The draws are those of ``scipy.stats.bootstrap`` with
    ``rng=np.random.default_rng(seed)``.

    Args:
        samples: each has one number per example.
        seed: seed of the draws.
        n_resamples: number of resamples.
    """
    n = samples[0].size
    draw = _kept if n * n_resamples <= _KEPT else _drawn
    sums, start = np.empty((len(samples), n_resamples)), 0
    for block in draw(n, seed, n_resamples):
        end, times = start + len(block), block.astype(np.float64)
        for row, sample in zip(sums, samples, strict=True):
            # Do not use a BLAS product: its last digits may depend on the number of threads.
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
        # A byte is enough: more than 255 draws of one example do not happen in practice.
        yield np.bincount(drawn.ravel(), minlength=rows * n).astype(np.uint8).reshape(rows, n)


@lru_cache(maxsize=4)
def _kept(n: int, seed: int, n_resamples: int) -> tuple[Counts, ...]:
    return tuple(_drawn(n, seed, n_resamples))
