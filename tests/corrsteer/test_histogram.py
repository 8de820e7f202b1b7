"""Mutual information against scikit-learn, and bins in order."""

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.metrics import mutual_info_score

from steering_core.corrsteer.accumulate import EDGES, StreamingHistogram


def feed(values, labels, signed=False, batch=7):
    histogram = StreamingHistogram(values.shape[1], signed=signed)
    for start in range(0, len(labels), batch):
        csr = sp.csr_array(values[start : start + batch])
        histogram.update_sparse(csr.indptr, csr.indices, csr.data, labels[start : start + batch])
    return histogram


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    labels = (rng.random(300) < 0.3).astype(float)
    scale = 10.0 ** rng.uniform(-7, 1, (300, 6))
    values = scale * (rng.random((300, 6)) < 0.4 + 0.4 * labels[:, None])
    return values, labels


@pytest.mark.parametrize("signed", [False, True])
def test_mutual_information_is_that_of_the_binned_values(data, signed):
    values, labels = data
    if signed:
        values = values * np.where(np.arange(6) % 2, -1, 1)
    histogram = feed(values, labels, signed)
    edges = np.concatenate([-EDGES[::-1], EDGES]) if signed else EDGES
    expected = [mutual_info_score(labels, np.digitize(v, edges)) for v in values.T]
    np.testing.assert_allclose(histogram.mutual_information(), expected, atol=1e-12)
    assert histogram.counts().sum(axis=(0, 2)).tolist() == [300] * 6


def test_edges_rise_four_a_decade():
    assert (EDGES[0], EDGES[-1], len(EDGES)) == (pytest.approx(1e-6), 1.0, 25)
    for signed in (False, True):
        assert (np.diff(StreamingHistogram(1, signed=signed).edges) > 0).all()


def test_merge_and_round_trip_equal_one_pass(data):
    values, labels = data
    merged = feed(values[:100], labels[:100])
    merged.merge(StreamingHistogram.from_arrays(feed(values[100:], labels[100:]).to_arrays()))
    whole = feed(values, labels)
    np.testing.assert_array_equal(merged.counts(), whole.counts())


def test_one_outcome_and_bad_values(data):
    values, _ = data
    assert np.isnan(feed(values, np.ones(300)).mutual_information()).all()
    with pytest.raises(ValueError, match="NaN"):
        StreamingHistogram(1).update_sparse([0, 1], np.array([0]), np.array([np.nan]), [1.0])
    with pytest.raises(ValueError, match="other"):
        StreamingHistogram(1).merge(StreamingHistogram(1, signed=True))
