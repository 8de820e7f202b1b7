"""The working set where solvers struggle: many features, odd scales, no solution."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from optimize_instances import unit_dictionary

from steering_core.optimize.path import SteeringPath
from steering_core.optimize.working_set import feasibility, input_programs
from steering_core.optimize.working_set import solver as solver_module
from steering_core.optimize.working_set.active_set import Program
from steering_core.optimize.working_set.bounds import Limits
from steering_core.optimize.working_set.inner import solve_quadratic
from steering_core.optimize.working_set.primal import primal_qp
from steering_core.optimize.working_set.solver import WorkingSet


def directions_like(weight, k, seed):
    rng = np.random.default_rng(seed)
    return np.stack([weight, *rng.standard_normal((k - 1, weight.size))])


@pytest.mark.parametrize("qp_lambda", [1e2, 1e3, 1e4, 1e5])
def test_as_many_features_as_dimensions(qp_lambda):
    decoder, weight = unit_dictionary(2000, 48)
    decoder = decoder / np.linalg.norm(decoder, axis=1, keepdims=True).astype(float)
    r = [0.5, 2.0, 4.0, 8.0]
    mine, exact = (
        WorkingSet(decoder, weight).qp(r, qp_lambda),
        SteeringPath.fit(decoder, weight).qp(r, qp_lambda),
    )
    assert (mine.status == "optimal").all()
    np.testing.assert_allclose(mine.objective, exact.objective, rtol=1e-10)
    np.testing.assert_array_equal(mine.l0, exact.l0)
    np.testing.assert_allclose(mine.vector, exact.vector, rtol=1e-7, atol=1e-9)
    assert np.abs(mine.relative_gap).max() <= 1e-10


@pytest.mark.parametrize("scale", [1e-8, 1e-6, 1e6])
def test_the_scale_of_rows_decides_nothing(scale):
    decoder, weight = unit_dictionary(200, 16)
    directions = directions_like(weight, 2, 0)
    r = np.array([[2.0, 1.0]])
    one, other = (
        WorkingSet(decoder, directions),
        WorkingSet(scale * decoder.astype(float), directions),
    )
    limits = Limits(up=2.0, down=0.1)
    for epsilon in (2.0, 3.0):
        first = one.socp(r, epsilon, limits)
        second = other.socp(r, epsilon, Limits(up=2.0 / scale, down=0.1 / scale))
        assert first.status[0] == second.status[0]
        np.testing.assert_allclose(second.vector, first.vector, atol=1e-6)
        np.testing.assert_allclose(second.objective * scale, first.objective, rtol=1e-6)
    first, second = one.qp(r, 3.0), other.qp(r, 3.0 / scale)
    assert second.status[0] == "optimal"
    np.testing.assert_allclose(second.vector, first.vector, atol=1e-8)


@pytest.mark.parametrize("gain", [1e-6, 1e-8, 1e-10])
def test_a_tiny_gain_is_feasible(gain):
    decoder, weight = np.array([[-1.0, 0.0], [gain, 1.0]]), np.array([1.0, 0.0])
    exact = SteeringPath.fit(decoder, weight).qp([1.0], 1e-6)
    solver = WorkingSet(decoder, weight)
    assert solver.qp([1.0], 1e-6).status[0] == "optimal"
    assert solver.qp([1.0], 1e-6).objective[0] == pytest.approx(exact.objective[0], rel=1e-8)
    assert solver.socp([1.0], 2.0 / gain).status[0] == "optimal"
    assert solver.socp([1.0], 0.5 / gain).status[0] == "infeasible"


@pytest.mark.parametrize("size", [1e-4, 1e-8, 1e-11])
def test_a_penalty_of_next_to_nothing_loses_no_digits(size):
    decoder, weight = unit_dictionary(200, 16)
    r = np.array([0.5, 2.0])
    exact = SteeringPath.fit(decoder, weight).qp(r, size)
    mine = WorkingSet(decoder, weight).qp(r, size)
    assert (mine.status == "optimal").all()
    np.testing.assert_allclose(mine.objective, exact.objective, rtol=1e-12)
    np.testing.assert_allclose(mine.vector @ weight, r, rtol=1e-12)
    assert np.abs(mine.relative_gap).max() <= 1e-12


def test_without_a_proof_it_is_failed_not_infeasible(monkeypatch):
    decoder, weight = unit_dictionary(200, 16)
    directions = np.stack([weight, -weight])
    solver = WorkingSet(decoder, directions)
    assert solver.qp([[1.0, 1.0]], 1.0).status[0] == "infeasible"
    monkeypatch.setattr(feasibility, "_FLAT", -1.0)  # every column refutes the certificate
    assert solver.qp([[1.0, 1.0]], 1.0).status[0] == "failed"


def test_the_solver_named_is_the_one_whose_point_was_used(monkeypatch):
    decoder, weight = unit_dictionary(200, 16)
    plain = WorkingSet(decoder, weight).qp([2.0], 3.0)
    assert plain.inner[0] == "osqp"
    finish, calls = input_programs.finish_qp, []

    def fails_at_first(*arguments):
        calls.append(1)
        return None if len(calls) == 1 else finish(*arguments)

    monkeypatch.setattr(input_programs, "finish_qp", fails_at_first)
    solved = WorkingSet(decoder, weight).qp([2.0], 3.0)
    assert solved.inner[0] == "clarabel"
    assert solved.iterations[0] > plain.iterations[0]
    np.testing.assert_allclose(solved.vector, plain.vector, atol=1e-9)


def test_a_solver_that_gets_worse_does_not_undo_what_is_certified(monkeypatch):
    decoder, weight = unit_dictionary(1400, 200)
    outcome, met = input_programs.QPInputProgram.outcome, []

    def worse_at_last(self, point, costs):
        met.append(outcome(self, point, costs))
        return replace(met[-1], dual_objective=-1.0) if len(met) == 3 else met[-1]

    monkeypatch.setattr(input_programs.QPInputProgram, "outcome", worse_at_last)
    solved = WorkingSet(decoder, weight).qp([2.0], 50.0, tolerance=0.1)
    assert solved.rounds[0] == len(met) == 3
    assert solved.objective[0] == met[1].objective > met[2].objective
    assert solved.status[0] == "optimal"
    assert 0.01 < solved.relative_gap[0] < 0.1


def test_infeasible_inputs_leave_no_columns_behind(monkeypatch):
    decoder, weight = unit_dictionary(1400, 200)
    monkeypatch.setattr(solver_module, "_MOST", 100)
    solver, least = WorkingSet(decoder, weight), 1.0 / np.linalg.norm(weight)
    solver.socp([1.0], 3.0)
    grown = []
    add = type(solver._columns).add
    monkeypatch.setattr(
        type(solver._columns), "add", lambda self, ids: grown.append(ids.size) or add(self, ids)
    )
    for i in range(6):  # 200 columns of their own each, too few for the shortest vector
        limits = Limits(up=np.where(np.arange(1400) % 7 == i, np.inf, 0.0))
        assert solver.socp([1.0], 1.02 * least, limits).status[0] == "infeasible"
        assert solver._columns.ids.size <= 100
    assert sum(grown) > 300


def test_a_budget_at_the_least_norm():
    decoder, weight = unit_dictionary(2000, 48)
    solver, least = WorkingSet(decoder, weight), 2.0 / np.linalg.norm(weight)
    limits = Limits(up=np.where(np.arange(2000) % 6 == 0, np.inf, 0.0))
    parts = np.array([1 + 1e-9, 1 + 1e-12, 1.0, 1 - 1e-10, 1 - 1e-8])
    solved = solver.socp(np.full(5, 2.0), parts * least, limits)
    assert solved.status.tolist() == ["optimal"] * 3 + ["infeasible"] * 2
    assert np.abs(solved.relative_gap[:3]).max() <= 1e-6


@pytest.mark.parametrize("seed", range(4))
def test_a_budget_that_no_price_brings_lower(seed):
    rng = np.random.default_rng(seed)
    decoder, weight = rng.standard_normal((40, 4)), rng.standard_normal(4)
    path, solver = SteeringPath.fit(decoder, weight, s=np.inf), WorkingSet(decoder, weight)
    least = path.knots.least_norm
    mine, exact = solver.socp([1.5], 1.5 * least), path.socp([1.5], 1.5 * least)
    assert mine.status[0] == exact.status[0] == "optimal"
    # The objective knows a budget there to the square root of its rounding only.
    assert mine.objective[0] == pytest.approx(exact.objective[0], rel=3e-6)
    assert mine.residual_norm[0] <= 1.5 * least * (1 + 1e-11)


def test_block_pivots_and_the_primal_method_agree():
    rng = np.random.default_rng(0)
    for _ in range(40):
        rows = rng.standard_normal((30, 8))
        rows = np.concatenate([rows, rows[:10], rows[:5]])  # dependent columns
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        margins = (rows @ rng.standard_normal((8, 2))).T
        caps = np.where(rng.random(45) < 0.5, np.inf, rng.uniform(0.1, 2.0, 45))
        program = Program(rows @ rows.T, margins, caps, rng.uniform(0.5, 2.0, 45))
        s = rng.uniform(0.2, 2.0, 2)
        start = solve_quadratic(program, s)
        x, mu, active = primal_qp(program, s, start.x, start.mu)
        assert (margins @ x >= s - 1e-9).all() and (x >= 0).all() and (x <= caps).all()
        cost = program.cost + program.gram @ x - mu @ margins
        assert (cost[x < caps] >= -1e-8).all() and (np.abs(cost[active.free]) <= 1e-8).all()
        assert (mu >= -1e-9).all() and np.linalg.matrix_rank(rows[active.free]) == active.free.sum()


def test_no_inputs_at_all():
    solver = WorkingSet(np.eye(3), np.eye(3)[:2])
    for shortfall in (np.zeros(0), np.zeros((0, 2)), []):
        for solved in (solver.qp(shortfall, 1.0), solver.socp(shortfall, 1.0)):
            assert len(solved) == 0 and solved.vector.shape == (0, 3)
            assert solved.objective.shape == (0,) and solved.delta.shape == (0, 3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_equals_cpu():
    decoder, weight = unit_dictionary(3000, 40)
    directions = directions_like(weight, 2, 0)
    r = np.random.default_rng(0).uniform(0.5, 3.0, (5, 2))
    first, second = (WorkingSet(decoder, directions, device=name) for name in ("cuda", "cpu"))
    for mine, exact in (
        (first.qp(r, 3.0), second.qp(r, 3.0)),
        (first.socp(r, 9.0), second.socp(r, 9.0)),
    ):
        assert (mine.status == exact.status).all()
        np.testing.assert_allclose(mine.vector, exact.vector, atol=1e-9)
