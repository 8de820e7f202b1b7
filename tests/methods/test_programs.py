"""The programs as methods: what the probe says afterwards, and what is refused."""

from dataclasses import replace

import cvxpy as cp
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from small_world import D_MODEL, decoder, inputs, probe

from steering_core.methods import ConvexOptimalSteering, InfeasibleError, QPOptimalSteering
from steering_core.optimize.dictionary import Dictionary
from steering_core.optimize.path import SteeringPath

D = decoder()
W, B = probe().weight_vector, probe().bias


def logit(h: np.ndarray, target_class: int = 1) -> float:
    return float(h @ W + B) * (1 if target_class == 1 else -1)


def test_the_published_call():
    activation, probe_, decoder_ = inputs()[0], probe(), D
    qp = QPOptimalSteering(qp_lambda=1.0, tau=0.5)
    v = qp.compute_steering_vector(
        h=activation,
        probe_w=probe_.weight_vector,
        probe_b=probe_.bias,
        D=decoder_,
        sae_features=None,
        target_class=1,
    )
    assert v.shape == (D_MODEL,)
    assert logit(activation) < 0.5
    assert logit(activation + v) == pytest.approx(0.5, abs=1e-9)


@pytest.mark.parametrize("target_class", [0, 1])
@pytest.mark.parametrize("method", [QPOptimalSteering(0.5), ConvexOptimalSteering(50.0)])
@pytest.mark.parametrize("tau", [-0.5, 0.0, 0.5, 3.0])
def test_the_logit_reaches_tau_exactly_or_nothing_is_added(method, target_class: int, tau: float):
    method.tau = tau
    seen = set()
    for h in inputs():
        v = method.compute_steering_vector(h, W, B, D, target_class=target_class)
        if logit(h, target_class) >= tau:
            np.testing.assert_array_equal(v, np.zeros(D_MODEL))
            seen.add("nothing")
        else:
            assert logit(h + v, target_class) == pytest.approx(tau, abs=1e-9)
            seen.add("moved")
    assert seen == {"nothing", "moved"}


@given(st.integers(0, 10**6), st.floats(0.05, 20), st.sampled_from([0, 1]))
@hypothesis_settings(max_examples=12, deadline=None)
def test_qp_is_the_optimum_of_the_program_as_written(
    seed: int, qp_lambda: float, target_class: int
):
    D = decoder(seed, d_sae=20, d_model=6)
    rng = np.random.default_rng(seed)
    h, w, b, tau = rng.standard_normal(6), rng.standard_normal(6), 0.3, 2.0
    sign = 1 if target_class == 1 else -1
    delta = cp.Variable(20, nonneg=True)
    reach = sign * ((h + D.T @ delta) @ w + b) >= tau
    problem = cp.Problem(
        cp.Minimize(cp.sum(delta) + qp_lambda / 2 * cp.sum_squares(D.T @ delta)), [reach]
    )
    problem.solve(solver="CLARABEL")
    v = QPOptimalSteering(qp_lambda, tau).compute_steering_vector(
        h, w, b, D, target_class=target_class
    )
    np.testing.assert_allclose(v, D.T @ delta.value, atol=2e-5 * (1 + np.linalg.norm(v)))


@given(st.integers(0, 10**6), st.floats(0.5, 8), st.sampled_from([0, 1]))
@hypothesis_settings(max_examples=12, deadline=None)
def test_socp_is_the_optimum_or_infeasible(seed: int, epsilon: float, target_class: int):
    D = decoder(seed, d_sae=20, d_model=6)
    rng = np.random.default_rng(seed)
    h, w, b, tau = rng.standard_normal(6), rng.standard_normal(6), 0.3, 2.0
    sign = 1 if target_class == 1 else -1
    delta = cp.Variable(20, nonneg=True)
    problem = cp.Problem(
        cp.Minimize(cp.sum(delta)),
        [sign * ((h + D.T @ delta) @ w + b) >= tau, cp.norm(D.T @ delta) <= epsilon],
    )
    problem.solve(solver="CLARABEL")
    method = ConvexOptimalSteering(epsilon, tau)
    if problem.status == "infeasible":
        with pytest.raises(InfeasibleError):
            method.compute_steering_vector(h, w, b, D, target_class=target_class)
        return
    v = method.compute_steering_vector(h, w, b, D, target_class=target_class)
    assert np.linalg.norm(v) <= epsilon * (1 + 1e-9)
    # The vector determines 1ᵀδ only through the path: compare the values.
    cheapest = cp.Variable(20, nonneg=True)
    cost = cp.Problem(cp.Minimize(cp.sum(cheapest)), [D.T @ cheapest == v])
    cost.solve(solver="CLARABEL")
    assert cost.value == pytest.approx(problem.value, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("target_class", [0, 1])
def test_infeasible_is_an_error_not_a_zero_vector(target_class: int):
    h = inputs()[0 if target_class == 1 else -1]
    need = 0.5 - logit(h, target_class)
    assert need > 0
    too_little = 0.99 * need / np.linalg.norm(W)  # Cauchy-Schwarz: no vector this short will do
    with pytest.raises(InfeasibleError, match="convex_optimal is infeasible"):
        ConvexOptimalSteering(too_little, 0.5).compute_steering_vector(
            h, W, B, D, target_class=target_class
        )


def test_no_feature_that_helps_is_infeasible():
    against = -np.abs(D @ W)[:, None] * np.outer(np.ones(40), W) / (W @ W)  # a = D w <= 0
    with pytest.raises(InfeasibleError, match="qp_optimal is infeasible"):
        QPOptimalSteering().compute_steering_vector(inputs()[0], W, B, against)


def test_one_path_serves_all_inputs(monkeypatch: pytest.MonkeyPatch):
    fits = []
    fit = SteeringPath.fit
    monkeypatch.setattr(SteeringPath, "fit", lambda *a, **k: fits.append(1) or fit(*a, **k))
    method = QPOptimalSteering(tau=2.0)
    first = [method.compute_steering_vector(h, W, B, D) for h in inputs()]
    assert len(fits) == 1
    # Another probe or another decoder is another path, whatever was kept.
    other = method.compute_steering_vector(inputs()[0], 2 * W, B, D)
    assert inputs()[0] @ (2 * W) + B + other @ (2 * W) == pytest.approx(2.0, abs=1e-9)
    method.compute_steering_vector(inputs()[0], W, B, decoder(seed=1))
    assert len(fits) == 3
    again = method.compute_steering_vector(inputs()[0], W, B, D)
    np.testing.assert_allclose(again, first[0], atol=1e-12)


@pytest.mark.parametrize("make", [np.array, torch.tensor])
def test_arrays_changed_in_place_are_other_arrays(make):
    rows, w = make(D), make(W)
    method, h = QPOptimalSteering(tau=2.0), inputs()[0]
    method.compute_steering_vector(h, w, B, rows)
    w *= 2
    v = method.compute_steering_vector(h, w, B, rows)
    assert (h + v) @ (2 * W) + B == pytest.approx(2.0, abs=1e-9)
    rows *= 3
    v = method.compute_steering_vector(h, w, B, rows)
    np.testing.assert_allclose(v, QPOptimalSteering(tau=2.0).compute_steering_vector(
        h, 2 * W, B, 3 * D
    ))  # fmt: skip


def test_an_array_changed_into_an_invalid_decoder_is_named():
    method, h = QPOptimalSteering(tau=2.0), inputs()[0]
    method.compute_steering_vector(h, W, B, D)
    for bad in (np.full_like(D, np.nan), D + 0j, D.astype(object)):
        bad[0, 0] = np.nan
        with pytest.raises(ValueError, match="D "):
            method.compute_steering_vector(h, W, B, bad)
    v = method.compute_steering_vector(h, W, B, D)
    assert (h + v) @ W + B == pytest.approx(2.0, abs=1e-9)


def test_feature_activations_do_not_matter():
    features = np.random.default_rng(0).random(40)
    for method in (QPOptimalSteering(), ConvexOptimalSteering(50)):
        plain = method.compute_steering_vector(inputs()[0], W, B, D)
        given_features = method.compute_steering_vector(inputs()[0], W, B, D, features)
        np.testing.assert_array_equal(plain, given_features)


def test_torch_and_float32_are_welcome():
    h = inputs()[0]
    want = QPOptimalSteering().compute_steering_vector(h, W, B, D.astype(np.float32))
    got = QPOptimalSteering().compute_steering_vector(
        torch.from_numpy(h), torch.from_numpy(W), B, torch.from_numpy(D.astype(np.float32))
    )
    np.testing.assert_allclose(got, want, atol=1e-12)
    assert got.dtype == np.float64


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"h": np.zeros(D_MODEL - 1)}, "h must have shape"),
        ({"h": np.zeros((1, D_MODEL))}, "h must have 1 dimension"),
        ({"h": np.full(D_MODEL, np.nan)}, "h holds NaN"),
        ({"probe_b": np.inf}, "probe_b must be finite"),
        ({"probe_b": [1.0, 2.0]}, "probe_b must be a number"),
        ({"D": D * 1j}, "D is not an array of numbers: they are complex"),
        ({"probe_w": np.full(D_MODEL, np.nan)}, "probe_w holds NaN"),
        ({"D": np.zeros((4, D_MODEL + 1))}, "D must have shape"),
        ({"D": np.zeros(D_MODEL)}, "D must have shape"),
        ({"D": [[1.0], [1.0, 2.0]]}, "D is not an array"),
        ({"D": np.full((4, D_MODEL), np.nan)}, "D holds NaN"),
        ({"target_class": 2}, "target_class"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_arguments_are_named(change: dict, named: str):
    arguments = {"h": inputs()[0], "probe_w": W, "probe_b": B, "D": D, "target_class": 1}
    with pytest.raises(ValueError, match=named):
        QPOptimalSteering().compute_steering_vector(**{**arguments, **change})


def uncertified(monkeypatch: pytest.MonkeyPatch, from_knot: int):
    """Paths whose dual violation from some knot on is too large to certify anything."""
    fit = SteeringPath.fit

    def damaged(*arguments):
        path = fit(*arguments).extend(np.inf)
        violation = path.knots.violation.copy()
        violation[from_knot:] = 1e-3
        return SteeringPath(replace(path.knots, violation=violation), path.d_sae, path.weight)

    monkeypatch.setattr(SteeringPath, "fit", damaged)


def test_a_solution_that_is_not_certified_is_not_passed_off_as_optimal(
    monkeypatch: pytest.MonkeyPatch,
):
    uncertified(monkeypatch, 1)
    with pytest.raises(ArithmeticError, match="certified gap"):
        QPOptimalSteering().compute_steering_vector(inputs()[0], W, B, D)


@pytest.mark.parametrize("target_class", [0, 1])
@pytest.mark.parametrize("method", [QPOptimalSteering(0.5), ConvexOptimalSteering(50.0)])
def test_many_inputs_are_solved_as_one_by_one(method, target_class: int, monkeypatch):
    compared, holds = [], Dictionary.holds
    monkeypatch.setattr(
        Dictionary, "holds", lambda self, rows: compared.append(1) or holds(self, rows)
    )
    method.compute_steering_vector(inputs()[0], W, B, D, target_class=target_class)
    compared.clear()
    H = np.stack(inputs())
    got = method.compute_steering_vectors(H, W, B, D, target_class)
    assert len(compared) == 1
    want = [method.compute_steering_vector(h, W, B, D, target_class=target_class) for h in H]
    np.testing.assert_allclose(got, want, atol=1e-12)


def test_rows_without_a_solution_are_named_or_nan():
    H = np.stack(inputs())
    need = 0.5 - (H @ W + B)
    method = ConvexOptimalSteering(0.99 * need.max() / np.linalg.norm(W), 0.5)
    vectors = method.compute_steering_vectors(H, W, B, D, unsolved="nan")
    none = np.isnan(vectors).all(axis=1)
    assert none[need.argmax()] and not none[need <= 0].any() and (need <= 0).any()
    assert np.isfinite(vectors[~none]).all()
    with pytest.raises(InfeasibleError, match=f"rows .*{need.argmax()}.* is infeasible"):
        method.compute_steering_vectors(H, W, B, D)
    with pytest.raises(ValueError, match="unsolved"):
        method.compute_steering_vectors(H, W, B, D, unsolved="zero")
    with pytest.raises(ValueError, match="a row of H must have shape"):
        method.compute_steering_vectors(H[:, 1:], W, B, D)
    with pytest.raises(ValueError, match="H must have 2 dimension"):
        method.compute_steering_vectors(H[0], W, B, D)


def test_rows_that_are_not_certified_are_named_or_nan(monkeypatch: pytest.MonkeyPatch):
    uncertified(monkeypatch, 1)
    H = np.stack(inputs())
    moved = H @ W + B < 0.5
    first = np.flatnonzero(moved)[0]
    with pytest.raises(ArithmeticError, match=rf"rows {first}.*certified gap"):
        QPOptimalSteering().compute_steering_vectors(H, W, B, D)
    vectors = QPOptimalSteering().compute_steering_vectors(H, W, B, D, unsolved="nan")
    assert (np.isnan(vectors).all(axis=1) == moved).all() and moved.any() and not moved.all()
