"""One pass over a stored stream gives the whole table, for any batches."""

from itertools import pairwise

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from steering_core.errors import DataError
from steering_core.statistics.correlation import correlate

N, F = 40, 6
RNG = np.random.default_rng(3)
DENSE = RNG.random((N, F)) * (RNG.random((N, F)) < 0.4)
NAMES = [f"e{i}" for i in range(N)]
LABELS = {name: float(i % 2) for i, name in enumerate(NAMES) if i < 30}


def batches(cuts: list[int], order: np.ndarray | None = None):
    order = np.arange(N) if order is None else order
    edges = [0, *sorted(cuts), N]
    for start, stop in pairwise(edges):
        rows = order[start:stop]
        yield [NAMES[i] for i in rows], sp.csr_matrix(DENSE[rows])


@given(st.lists(st.integers(0, N), max_size=6, unique=True), st.integers(0, 100))
def test_equals_numpy_on_the_labelled_rows(cuts: list[int], seed: int):
    order = np.random.default_rng(seed).permutation(N)
    found = correlate(batches(cuts, order), LABELS).result()
    labels = np.array(list(LABELS.values()))
    assert found.n == 30
    for feature in range(F):
        want = np.corrcoef(DENSE[:30, feature], labels)[0, 1]
        assert found.correlation[feature] == pytest.approx(want, abs=1e-10)
    np.testing.assert_allclose(found.mean, DENSE[:30].mean(axis=0), atol=1e-12)


def test_rows_without_a_label_do_not_count():
    found = correlate(batches([10]), LABELS).result()
    tampered = DENSE.copy()
    tampered[30:] = 1e6
    again = correlate(iter([(NAMES, sp.csr_matrix(tampered))]), LABELS).result()
    np.testing.assert_allclose(again.correlation, found.correlation, atol=1e-12)


def test_one_batch_is_held_at_a_time():
    alive = []

    def stream():
        for item in batches([10, 20]):
            alive.append(item)
            yield item
            # The consumer asked for the next batch: it must be done with this one.
            item[1].data[:] = np.nan

    assert np.isfinite(correlate(stream(), LABELS).result().correlation).all()
    assert len(alive) == 3


def test_a_labelled_example_without_features_is_an_error():
    with pytest.raises(DataError, match="31 labelled examples, 30 of them have features"):
        correlate(batches([5]), {**LABELS, "absent": 1.0})
    with pytest.raises(DataError, match="30 labelled examples, 0 of them"):
        correlate(iter([]), LABELS)


@pytest.mark.parametrize("where", ["one batch", "two batches"])
def test_a_repeated_example_does_not_replace_a_missing_one(where: str):
    names = ["e1" if name == "e3" else name for name in NAMES]
    stream = [(names, sp.csr_matrix(DENSE))]
    if where == "two batches":
        stream = [(names[:2], sp.csr_matrix(DENSE[:2])), (names[2:], sp.csr_matrix(DENSE[2:]))]
    with pytest.raises(DataError, match="twice"):
        correlate(iter(stream), LABELS)
