"""Other metrics and costs on the path, against solvers that know nothing of the path."""

import clarabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from steering_core.methods.declared_programs import covariance_metric
from steering_core.optimize.path import SteeringPath
from steering_core.optimize.substitution import (
    dense_optimum,
    substitute,
)

N, D_MODEL = 14, 6


def world(seed: int):
    rng = np.random.default_rng(seed)
    decoder = rng.standard_normal((N, D_MODEL))
    half = rng.standard_normal((D_MODEL, D_MODEL))
    metric = half @ half.T / D_MODEL + 0.2 * np.eye(D_MODEL)
    return decoder, rng.standard_normal(D_MODEL), metric, rng.uniform(0.3, 3.0, N)


def oracle(decoder, w, metric, cost, shortfall, *, qp_lambda=None, epsilon=None) -> float:
    """The optimum by Clarabel, in the original variables."""
    root = np.linalg.cholesky(metric).T  # ‖root v‖² = vᵀ metric v
    rows = root @ decoder.T
    n = len(cost)
    a = [-(decoder @ w)[None], -np.eye(n)]
    b = [np.array([-shortfall]), np.zeros(n)]
    cones = [clarabel.NonnegativeConeT(1 + n)]
    quadratic = np.zeros((n, n))
    if qp_lambda is not None:
        quadratic = qp_lambda * rows.T @ rows
    else:
        a += [np.zeros((1, n)), -rows]
        b += [np.array([epsilon]), np.zeros(len(rows))]
        cones.append(clarabel.SecondOrderConeT(1 + len(rows)))
    options = clarabel.DefaultSettings()
    options.verbose = False
    found = clarabel.DefaultSolver(
        sparse.csc_matrix(np.triu(quadratic)),
        cost,
        sparse.csc_matrix(np.vstack(a)),
        np.concatenate(b),
        cones,
        options,
    ).solve()
    assert str(found.status) == "Solved"
    return found.obj_val


@pytest.mark.parametrize("metric", [False, True])
@pytest.mark.parametrize("cost", [False, True])
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), margin=st.floats(0.2, 5.0), lam=st.floats(0.05, 5.0))
def test_a_program_in_any_metric_with_any_costs_is_the_optimum(metric, cost, seed, margin, lam):
    decoder, w, square, prices = world(seed)
    inside = substitute(decoder, square if metric else None, prices if cost else None)
    path = SteeringPath.fit(inside.decoder, inside.weight(w))
    square = square if metric else np.eye(D_MODEL)
    prices = prices if cost else np.ones(N)

    qp = path.qp(margin, lam)
    assert qp.status[0] == "optimal"
    best = oracle(decoder, w, square, prices, margin, qp_lambda=lam)
    assert qp.objective[0] == pytest.approx(best, rel=1e-5)

    delta = qp.delta.toarray()[0] / prices
    vector = inside.vectors(qp.vector)[0]
    np.testing.assert_allclose(vector, decoder.T @ delta, atol=1e-8 * np.abs(vector).max())
    assert w @ vector == pytest.approx(margin, rel=1e-8)
    mine = prices @ delta + lam / 2 * vector @ square @ vector
    assert mine == pytest.approx(qp.objective[0], rel=1e-8)

    epsilon = 1.3 * np.sqrt(vector @ square @ vector)
    socp = path.socp(margin, epsilon)
    assert socp.status[0] == "optimal"
    best = oracle(decoder, w, square, prices, margin, epsilon=epsilon)
    assert socp.objective[0] == pytest.approx(best, rel=1e-5)


def test_the_plain_program_keeps_the_decoder_and_the_weight_to_the_bit():
    decoder, w, _, _ = world(0)
    inside = substitute(decoder)
    assert np.array_equal(inside.decoder, decoder) and np.array_equal(inside.weight(w), w)


@given(seed=st.integers(0, 10**6))
@settings(max_examples=10, deadline=None)
def test_the_dense_optimum_is_the_floor_of_every_sparse_one(seed):
    decoder, w, metric, _ = world(seed)
    inside = substitute(decoder, metric)
    floor = dense_optimum(w, inside)
    assert w @ floor == pytest.approx(1.0)
    closed = np.linalg.solve(metric, w)
    np.testing.assert_allclose(floor, closed / (w @ closed), rtol=1e-7, atol=1e-9)
    sparse_one = inside.vectors(
        SteeringPath.fit(inside.decoder, inside.weight(w)).qp(1.0, [0.01, 1.0, 100.0]).vector
    )
    lengths = np.einsum("ni,ij,nj->n", sparse_one, metric, sparse_one)
    assert (lengths >= floor @ metric @ floor * (1 - 1e-9)).all()


def test_the_metric_of_the_covariance_is_that_within_classes():
    rng = np.random.default_rng(0)
    spread = np.diag([1.0, 2.0, 4.0])
    labels = np.arange(4000) % 2
    rows = rng.standard_normal((4000, 3)) @ spread + 50.0 * labels[:, None]
    metric = covariance_metric(rows, labels)
    assert np.trace(metric) == pytest.approx(3.0)
    expected = np.linalg.inv(spread @ spread)
    np.testing.assert_allclose(metric, 3 * expected / np.trace(expected), atol=0.1)


@pytest.mark.parametrize(
    ("metric", "cost", "message"),
    [
        (np.eye(3), None, "metric must be"),
        (np.diag([1.0] * 5 + [0.0]), None, "positive definite"),
        (np.triu(np.ones((D_MODEL, D_MODEL))), None, "symmetric"),
        (None, np.zeros(N), "cost must hold"),
    ],
)
def test_what_is_no_metric_or_no_cost_is_refused(metric, cost, message):
    with pytest.raises(ValueError, match=message):
        substitute(world(0)[0], metric, cost)
