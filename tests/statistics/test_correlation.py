import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from steering_core.statistics.correlation import StreamingCorrelation
from steering_core.storage.arrays import load_arrays, save_arrays


def sparse_data(rng, n=400, f=30, density=0.15, binary=True):
    values = rng.exponential(1.0, (n, f)) * (rng.random((n, f)) < density)
    labels = (values[:, 0] + rng.normal(0, 0.5, n) > 0.3).astype(float)
    return values, labels if binary else labels + rng.normal(0, 0.3, n)


def feed(accumulator, values, labels, batch, dense=False):
    for start in range(0, len(labels), batch):
        rows, some = values[start : start + batch], labels[start : start + batch]
        if dense:
            accumulator.update_dense(rows, some)
        else:
            csr = sp.csr_array(rows)
            accumulator.update_sparse(csr.indptr, csr.indices, csr.data, some)
    return accumulator


def reference(values, labels):
    with np.errstate(all="ignore"):
        return np.array([np.corrcoef(column, labels)[0, 1] for column in values.T])


def assert_matches_numpy(result, values, labels, atol=1e-10):
    positive = labels > 0.5
    assert result.n == len(labels) and result.n_positive == positive.sum()
    assert_allclose(result.correlation, reference(values, labels), atol=atol, rtol=0)
    assert_allclose(result.mean, values.mean(0), rtol=1e-12)
    assert_allclose(result.variance, values.var(0), rtol=1e-9)
    assert_allclose(result.mean_positive, values[positive].mean(0), rtol=1e-12)
    assert_allclose(result.mean_negative, values[~positive].mean(0), rtol=1e-12)
    assert_allclose(result.mean_square_positive, (values[positive] ** 2).mean(0), rtol=1e-12)
    assert_allclose(result.mean_square_negative, (values[~positive] ** 2).mean(0), rtol=1e-12)
    assert_array_equal(result.active_fraction, (values != 0).mean(0))
    assert_array_equal(result.active_positive, (values[positive] != 0).sum(0))


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("batch", [1, 7, 400])
def test_equals_numpy(binary, dense, batch):
    values, labels = sparse_data(np.random.default_rng(0), binary=binary)
    result = feed(StreamingCorrelation(30), values, labels, batch, dense).result()
    assert_matches_numpy(result, values, labels)
    assert (result.reason == "").all()


@pytest.mark.parametrize("dense", [True, False])
def test_values_of_either_sign_and_without_zeros(dense):
    rng = np.random.default_rng(1)
    values = rng.normal(size=(300, 8))
    labels = (values[:, 2] > 0).astype(float)
    assert_matches_numpy(
        feed(StreamingCorrelation(8), values, labels, 13, dense).result(), values, labels
    )


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("label_offset", [0.0, 1e8])
@pytest.mark.parametrize("keep", [1.0, 0.5])
def test_large_offsets_lose_no_digits(dense, label_offset, keep):
    rng = np.random.default_rng(2)
    noise = rng.normal(size=(500, 5))
    values = (1e8 + noise) * (rng.random((500, 5)) < keep)
    labels = label_offset + noise @ rng.normal(size=5)
    result = feed(StreamingCorrelation(5), values, labels, 17, dense).result()
    assert_allclose(result.correlation, reference(values, labels), atol=1e-10, rtol=0)
    assert_allclose(result.variance, values.var(0), rtol=1e-10)
    # The naive form really fails here, so that the assertion above says something.
    if keep == 1.0:
        naive = (values**2).mean(0) - values.mean(0) ** 2
        assert np.abs(naive / values.var(0) - 1).max() > 1e-2


def test_sums_that_differ_by_batching_agree():
    values, labels = sparse_data(np.random.default_rng(3), binary=False)
    one = feed(StreamingCorrelation(30), values, labels, 400).result()
    many = feed(StreamingCorrelation(30), values, labels, 3, dense=True).result()
    assert_allclose(one.correlation, many.correlation, atol=1e-13)


samples = st.lists(
    st.tuples(
        st.lists(
            st.one_of(st.just(0.0), st.floats(-1e3, 1e3).filter(lambda x: abs(x) > 1e-3)),
            min_size=3,
            max_size=3,
        ),
        st.sampled_from([0.0, 1.0, 0.25]),
    ),
    max_size=12,
)


def accumulate(rows):
    accumulator = StreamingCorrelation(3)
    if rows:
        values = np.array([row for row, _ in rows])
        labels = np.array([label for _, label in rows])
        feed(accumulator, values, labels, 5)
    return accumulator


def clone(accumulator):
    return StreamingCorrelation.from_arrays(accumulator.to_arrays())


@settings(max_examples=150, deadline=None)
@given(samples, samples, samples)
def test_merge_is_associative_commutative_and_equals_one_pass(a, b, c):
    parts = [accumulate(rows) for rows in (a, b, c)]
    left = clone(parts[0])
    left.merge(parts[1])
    left.merge(parts[2])
    tail = clone(parts[1])
    tail.merge(parts[2])
    right = clone(parts[0])
    right.merge(tail)
    reverse = clone(parts[2])
    reverse.merge(parts[1])
    reverse.merge(parts[0])
    expected = accumulate(a + b + c).result()
    for merged in (left, right, reverse):
        got = merged.result()
        assert (got.n, got.n_positive) == (expected.n, expected.n_positive)
        assert_allclose(got.mean, expected.mean, atol=1e-10)
        assert_allclose(got.variance, expected.variance, rtol=1e-10, atol=1e-10)
        assert_array_equal(got.reason, expected.reason)
        assert_allclose(got.correlation, expected.correlation, atol=1e-9)
        assert_array_equal(got.active_positive, expected.active_positive)
        assert_array_equal(got.active_negative, expected.active_negative)


def test_merge_leaves_the_other_as_it_is():
    values, labels = sparse_data(np.random.default_rng(4))
    left = feed(StreamingCorrelation(30), values[:150], labels[:150], 20)
    right = feed(StreamingCorrelation(30), values[150:], labels[150:], 20)
    before = right.to_arrays()
    left.merge(right)
    assert_matches_numpy(left.result(), values, labels)
    for name, array in right.to_arrays().items():
        assert_array_equal(array, before[name])
    empty = StreamingCorrelation(30)
    empty.merge(left)
    assert_matches_numpy(empty.result(), values, labels)


def test_merge_with_itself_doubles_the_samples():
    values, labels = sparse_data(np.random.default_rng(5))
    accumulator = feed(StreamingCorrelation(30), values, labels, 50)
    accumulator.merge(accumulator)
    twice = np.concatenate([values, values]), np.concatenate([labels, labels])
    assert_matches_numpy(accumulator.result(), *twice)


def test_undefined_correlations_are_nan_with_a_reason():
    values = np.array([[0.0, 0.1, 1.0], [0.0, 0.1, 2.0], [0.0, 0.1, 0.0]])
    labels = np.array([0.0, 1.0, 1.0])
    result = feed(StreamingCorrelation(3), values, labels, 1).result()
    assert_array_equal(result.reason, ["constant feature", "constant feature", ""])
    assert_array_equal(np.isnan(result.correlation), [True, True, False])
    same = feed(StreamingCorrelation(3), values, np.full(3, 0.1), 2).result()
    assert set(same.reason) == {"constant label"} and np.isnan(same.correlation).all()
    assert np.isnan(same.mean_positive).all() and not np.isnan(same.mean_negative).any()
    nothing = StreamingCorrelation(2).result()
    assert set(nothing.reason) == {"no samples"} and np.isnan(nothing.mean).all()
    assert np.isnan(nothing.active_fraction).all()


def test_moments_beyond_float64_are_an_overflow_not_a_number():
    with np.errstate(all="ignore"):
        values = np.array([[1e200], [-1e200], [3e200]])
        result = feed(StreamingCorrelation(1), values, np.array([0.0, 1.0, 1.0]), 3).result()
    assert result.reason[0] == "overflow" and np.isnan(result.correlation[0])


def test_explicit_zeros_and_unsorted_rows_are_the_same_matrix():
    accumulator = StreamingCorrelation(4)
    accumulator.update_sparse([0, 3, 5], [2, 0, 1, 3, 0], [1.0, 2.0, 0.0, 4.0, 5.0], [True, False])
    dense = StreamingCorrelation(4)
    dense.update_dense([[2.0, 0.0, 1.0, 0.0], [5.0, 0.0, 0.0, 4.0]], [1, 0])
    assert_allclose(accumulator.result().correlation, dense.result().correlation, atol=1e-14)
    assert_array_equal(accumulator.result().active_fraction, [1.0, 0.0, 0.5, 0.5])


def test_batches_without_rows_or_values_are_allowed():
    accumulator = StreamingCorrelation(2)
    accumulator.update_sparse([0], [], [], [])
    accumulator.update_dense(np.zeros((0, 2)), [])
    accumulator.update_sparse([0, 0], [], [], [1.0])
    assert accumulator.n == 1 and accumulator.result().n_positive == 1


def test_state_survives_storage(tmp_path):
    values, labels = sparse_data(np.random.default_rng(6))
    accumulator = feed(StreamingCorrelation(30), values[:200], labels[:200], 20)
    save_arrays(tmp_path / "state.safetensors", accumulator.to_arrays())
    again = StreamingCorrelation.from_arrays(load_arrays(tmp_path / "state.safetensors")[0])
    feed(again, values[200:], labels[200:], 20)
    assert_matches_numpy(again.result(), values, labels)
    assert accumulator.n == 200, "the stored copy shares no memory with the original"


def test_damaged_state_is_refused():
    arrays = StreamingCorrelation(3).to_arrays()
    with pytest.raises(ValueError, match="lacks \\['state'\\]"):
        StreamingCorrelation.from_arrays({k: v for k, v in arrays.items() if k != "state"})
    with pytest.raises(ValueError, match="state has shape"):
        StreamingCorrelation.from_arrays(arrays | {"state": np.zeros((6, 4))})


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"labels": [0.0, np.nan]}, "labels"),
        ({"labels": [[0.0, 1.0]]}, "labels"),
        ({"labels": [0.0]}, "row_indptr"),
        ({"row_indptr": [0, 1, 2]}, "row_indptr"),
        ({"row_indptr": [0, 4, 3]}, "row_indptr"),
        ({"row_indptr": [0.0, 1.0, 3.0]}, "row_indptr"),
        ({"indices": [0, 1, 3]}, "indices"),
        ({"indices": [-1, 1, 2]}, "indices"),
        ({"indices": [0, 2, 2]}, "indices names a feature twice"),
        ({"indices": [0.0, 1.0, 2.0]}, "indices"),
        ({"values": [1.0, 2.0]}, "values"),
        ({"values": [1.0, np.inf, 2.0]}, "values"),
    ],
)
def test_bad_sparse_input_is_named_and_changes_nothing(change, named):
    good = {
        "row_indptr": [0, 1, 3],
        "indices": [0, 1, 2],
        "values": [1.0, 2.0, 3.0],
        "labels": [0.0, 1.0],
    }
    accumulator = StreamingCorrelation(3)
    accumulator.update_sparse(**good)
    before = accumulator.to_arrays()
    with pytest.raises(ValueError, match=named):
        accumulator.update_sparse(**(good | change))
    for name, array in accumulator.to_arrays().items():
        assert_array_equal(array, before[name])


def test_bad_dense_input_is_named():
    accumulator = StreamingCorrelation(2)
    with pytest.raises(ValueError, match="values must have shape"):
        accumulator.update_dense(np.zeros((2, 3)), [0, 1])
    with pytest.raises(ValueError, match="values contains NaN"):
        accumulator.update_dense([[np.nan, 1.0]], [0])
    with pytest.raises(ValueError, match="n_features"):
        StreamingCorrelation(0)
    with pytest.raises(ValueError, match="other has 3"):
        accumulator.merge(StreamingCorrelation(3))


def test_the_caller_may_fill_the_same_buffers_again():
    indptr, indices = np.array([0, 1, 2]), np.array([0, 1])
    values, labels = np.array([1.0, 2.0]), np.array([1.0, 0.0])
    accumulator = StreamingCorrelation(2)
    accumulator.update_sparse(indptr, indices, values, labels)
    for array in (indptr, indices, values, labels):
        array[:] = 0
    result = accumulator.result()
    assert_array_equal(result.mean_positive, [1.0, 0.0])
    assert_array_equal(result.mean_negative, [0.0, 2.0])


def test_a_batch_larger_than_the_queue_is_taken_whole():
    values, labels = sparse_data(np.random.default_rng(7), n=500, f=3, density=0.9)
    accumulator = feed(StreamingCorrelation(3), values[:4], labels[:4], 1)
    feed(accumulator, values[4:480], labels[4:480], 476)
    feed(accumulator, values[480:], labels[480:], 1)
    assert_matches_numpy(accumulator.result(), values, labels)


@pytest.mark.parametrize("when", ["same batch", "later batch", "merge", "stored"])
def test_a_two_valued_label_may_become_a_real_one(when):
    values, labels = sparse_data(np.random.default_rng(5), n=60, f=12)
    labels[40:] += np.linspace(-0.3, 0.3, 20)
    batch = 60 if when == "same batch" else 20
    first, second = StreamingCorrelation(12), StreamingCorrelation(12)
    if when == "merge":
        feed(first, values[:40], labels[:40], batch).merge(
            feed(second, values[40:], labels[40:], batch)
        )
    elif when == "stored":
        before = feed(first, values[:40], labels[:40], batch)
        first = feed(second.from_arrays(before.to_arrays()), values[40:], labels[40:], batch)
    else:
        for start in range(0, 60, batch):
            feed(first, values[start : start + batch], labels[start : start + batch], batch)
            first.result()  # Empties the queue between batches.
    assert_matches_numpy(first.result(), values, labels)


def test_shards_of_different_two_valued_labels_merge():
    values, labels = sparse_data(np.random.default_rng(6), n=80, f=12)
    labels[40:] = np.where(labels[40:] > 0.5, 2.0, -1.0)
    first, second = StreamingCorrelation(12), StreamingCorrelation(12)
    feed(first, values[:40], labels[:40], 8).merge(feed(second, values[40:], labels[40:], 8))
    assert_matches_numpy(first.result(), values, labels)
    feed(first, values, labels, 8)
    assert_matches_numpy(first.result(), np.tile(values, (2, 1)), np.tile(labels, 2))
