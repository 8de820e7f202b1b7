from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from optimize_instances import instances, unit_dictionary

from steering_core.optimize.homotopy import DegeneratePathError, Homotopy
from steering_core.optimize.lookup import PathLookup
from steering_core.optimize.path import SteeringPath
from steering_core.optimize.solution import BEYOND, INACCURATE, INFEASIBLE, OPTIMAL, SATISFIED

SHORTFALLS = np.concatenate([[-3.0, 0.0, 1e-9], np.geomspace(0.01, 50, 60)])


@settings(max_examples=50, deadline=None)
@given(instances(), st.floats(0.01, 1e3), st.floats(0.3, 5.0))
def test_equals_the_path(problem, qp_lambda, part):
    path = SteeringPath.fit(*problem).extend(np.inf)
    lookup = PathLookup(path, dtype=torch.float64)
    epsilon = part * (path.knots.least_norm or 1.0)
    r = torch.from_numpy(SHORTFALLS)
    for answer, solved in (
        (lookup.qp(r, qp_lambda), path.qp(SHORTFALLS, qp_lambda)),
        (lookup.socp(r, epsilon), path.socp(SHORTFALLS, epsilon)),
    ):
        vectors, codes = answer
        gap = np.abs(solved.relative_gap)
        clear = ~((gap > 0.9e-8) & (gap < 1.1e-8))  # else rounding decides about the status
        np.testing.assert_array_equal(codes.numpy()[clear], solved.code[clear])
        certified = np.isin(codes.numpy(), [OPTIMAL, SATISFIED])
        np.testing.assert_allclose(
            vectors.numpy(),
            np.where(certified[:, None], np.nan_to_num(solved.vector), 0.0),
            rtol=1e-9,
            atol=1e-9,
        )


@pytest.mark.parametrize("program", ["qp", "socp"])
@pytest.mark.parametrize("complete", [True, False])
def test_what_is_not_certified_is_left_alone_and_flagged(program, complete):
    """Multipliers that are wrong at some knots, and on the ray, as those of the path say it."""
    path = SteeringPath.fit(*unit_dictionary(300, 16), s=np.inf if complete else 5.0)
    violation = path.knots.violation.copy()
    violation[[3, 4, -1]] = 1e-5
    damaged = SteeringPath(replace(path.knots, violation=violation), 300, path.weight)
    reach = min(damaged.knots.s[-1], 50.0)
    r = np.linspace(0.01, 0.99, 200) * reach if program == "qp" else np.full(200, 2.0)
    ends = damaged.knots.norm[[-1, 0]] * [1.0 if complete else 1.0 + 1e-9, 1.5]
    parameter = np.ones(200) if program == "qp" else 2.0 * np.geomspace(*ends, 200)
    if complete and program == "socp":
        parameter[:4] = 2.0 * damaged.knots.least_norm * np.array([1, 1 + 1e-14, 1 + 1e-12, 1.001])
    solved = getattr(damaged, program)(r, parameter)
    vectors, codes = getattr(PathLookup(damaged), program)(
        torch.from_numpy(r), torch.from_numpy(parameter)
    )
    np.testing.assert_array_equal(codes.numpy(), solved.code)
    assert {OPTIMAL, INACCURATE} <= set(codes.tolist())
    assert (vectors[codes == INACCURATE] == 0).all() and (vectors[codes == OPTIMAL] != 0).any()
    _, all_well = getattr(PathLookup(damaged, tolerance=1.0), program)(
        torch.from_numpy(r), torch.from_numpy(parameter)
    )
    assert (all_well == OPTIMAL).all()


def test_a_tolerance_that_is_none_is_named():
    for bad in (np.nan, -1e-9, "tight"):
        with pytest.raises(ValueError, match="tolerance"):
            PathLookup(SteeringPath.fit(np.eye(3), np.ones(3), s=1.0), tolerance=bad)


def test_statuses_of_a_partial_path():
    path = SteeringPath.fit(*unit_dictionary(3000, 40), s=20.0)
    lookup = PathLookup(path, dtype=torch.float64)
    reach = path.knots.reach
    vectors, codes = lookup.qp(torch.tensor([-1.0, reach * 0.999, reach * 1.01, torch.nan]), 1.0)
    assert codes.tolist() == [SATISFIED, OPTIMAL, BEYOND, INFEASIBLE]
    assert (vectors[[0, 2, 3]] == 0).all()
    norm, weakest = path.knots.norm[-1], np.linalg.norm(path.weight)
    between = 0.5 + 0.5 * norm * weakest  # still above 1/‖w‖, below what is fitted
    shortfall = torch.tensor([1.0, 0.999, between, 1e9], dtype=torch.float64)
    _, codes = lookup.socp(shortfall, float(norm))
    assert codes.tolist() == [OPTIMAL, OPTIMAL, BEYOND, INFEASIBLE]


def test_casting_keeps_the_positions():
    path = SteeringPath.fit(*unit_dictionary(300, 16), s=np.inf)
    exact = path.qp(SHORTFALLS, 50.0).vector
    half = PathLookup(path).to(torch.bfloat16)
    vectors, _ = half.qp(torch.from_numpy(SHORTFALLS).float(), 50.0)
    assert vectors.dtype == torch.bfloat16
    np.testing.assert_allclose(vectors.float().numpy(), exact, atol=0.02 * np.abs(exact).max())


def test_infeasible_path_and_no_knots():
    lookup = PathLookup(SteeringPath.fit(-np.eye(3), np.ones(3)))
    vectors, codes = lookup.qp(torch.tensor([1.0, -1.0]), 1.0)
    assert codes.tolist() == [INFEASIBLE, SATISFIED]
    assert (vectors == 0).all()
    with pytest.raises(ValueError, match="path"):
        PathLookup(SteeringPath.fit(np.eye(3), np.ones(3)))


def test_a_path_stuck_at_its_beginning_has_nothing_in_range(monkeypatch):
    def stuck(self):
        raise DegeneratePathError("stuck")

    monkeypatch.setattr(Homotopy, "step", stuck)
    path = SteeringPath.fit(np.eye(3), np.ones(3))
    assert not path.stuck
    assert path.qp([1.0, -1.0], 1.0).status.tolist() == ["failed", "already_satisfied"]
    assert path.stuck
    lookup, r = PathLookup(path), torch.tensor([1.0, -1.0, 0.0, float("nan")])
    for vectors, codes in (lookup.qp(r, 1.0), lookup.socp(r, 2.0)):
        assert codes.tolist() == [BEYOND, SATISFIED, SATISFIED, INFEASIBLE]
        assert (vectors == 0).all()
    assert lookup.socp(r, 1e-3)[1][0] == INFEASIBLE


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan")])
def test_bad_parameters(bad):
    lookup = PathLookup(SteeringPath.fit(np.eye(3), np.ones(3), s=1.0))
    with pytest.raises(ValueError, match="qp_lambda"):
        lookup.qp(torch.ones(1), bad)
    with pytest.raises(ValueError, match="epsilon"):
        lookup.socp(torch.ones(1), bad - 1.0)
    for solve in (lookup.qp, lookup.socp):
        for shortfall in (torch.ones(1, 1), torch.tensor(1.0), np.ones(2), None):
            with pytest.raises(ValueError, match="shortfall"):
                solve(shortfall, 1.0)
        with pytest.raises(ValueError, match="must be a number"):
            solve(torch.ones(1), "much")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda():
    path = SteeringPath.fit(*unit_dictionary(300, 16), s=np.inf)
    vectors, _ = PathLookup(path).cuda().qp(torch.from_numpy(SHORTFALLS).cuda(), 2.0)
    np.testing.assert_allclose(
        vectors.cpu().numpy(), path.qp(SHORTFALLS, 2.0).vector, rtol=1e-4, atol=1e-4
    )
