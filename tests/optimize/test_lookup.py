import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from optimize_instances import instances, unit_dictionary

from steering_core.optimize.lookup import PathLookup
from steering_core.optimize.path import SteeringPath
from steering_core.optimize.solution import BEYOND, INFEASIBLE, OPTIMAL, SATISFIED

SHORTFALLS = np.concatenate([[-3.0, 0.0, 1e-9], np.geomspace(0.01, 50, 60)])


@settings(max_examples=50, deadline=None)
@given(instances(), st.floats(0.01, 1e3), st.floats(0.3, 5.0))
def test_equals_the_path(problem, lam, part):
    path = SteeringPath.fit(*problem).extend(np.inf)
    lookup = PathLookup(path, dtype=torch.float64)
    epsilon = part * (path.knots.least_norm or 1.0)
    r = torch.from_numpy(SHORTFALLS)
    for answer, solved in (
        (lookup.qp(r, lam), path.qp(SHORTFALLS, lam, tolerance=np.inf)),
        (lookup.socp(r, epsilon), path.socp(SHORTFALLS, epsilon, tolerance=np.inf)),
    ):
        vectors, codes = answer
        np.testing.assert_array_equal(codes.numpy(), solved.code)
        np.testing.assert_allclose(
            vectors.numpy(), np.nan_to_num(solved.vector), rtol=1e-9, atol=1e-9
        )


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


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan")])
def test_bad_parameters(bad):
    lookup = PathLookup(SteeringPath.fit(np.eye(3), np.ones(3), s=1.0))
    with pytest.raises(ValueError, match="lam"):
        lookup.qp(torch.ones(1), bad)
    with pytest.raises(ValueError, match="epsilon"):
        lookup.socp(torch.ones(1), bad - 1.0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda():
    path = SteeringPath.fit(*unit_dictionary(300, 16), s=np.inf)
    vectors, _ = PathLookup(path).cuda().qp(torch.from_numpy(SHORTFALLS).cuda(), 2.0)
    np.testing.assert_allclose(
        vectors.cpu().numpy(), path.qp(SHORTFALLS, 2.0).vector, rtol=1e-4, atol=1e-4
    )
