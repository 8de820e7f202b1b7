"""What the path certifies, and what it says where it cannot."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optimize_instances import (
    KINDS,
    assert_feasible,
    instance,
    instances,
    near_duplicates,
    unit_dictionary,
)

from steering_core.optimize import homotopy
from steering_core.optimize.homotopy import DegeneratePathError, Homotopy
from steering_core.optimize.path import SteeringPath

QUICK = settings(max_examples=60, deadline=None)


def test_positions_that_miss_their_program_are_not_optimal():
    decoder, weight = unit_dictionary(300, 16)
    path = SteeringPath.fit(decoder, weight)
    off = path.at([0.0, 0.0], [2.0, 2.0], "socp", [0.6, 50.0])
    assert off.residual_norm[0] > 0.6 * 1.1
    assert off.status.tolist() == ["inaccurate", "optimal"]
    solved = path.qp([2.0], 3.0)
    assert path.at(solved.position, [2.0], "qp", 3.0).status[0] == "optimal"
    assert path.at(solved.position * 1.001, [2.0], "qp", 3.0).status[0] == "inaccurate"


def test_a_bound_above_the_objective_is_not_certified():
    decoder, weight = unit_dictionary(300, 16)
    path = SteeringPath.fit(decoder, weight, s=10.0)
    wrong = replace(path.knots, mu=path.knots.mu * 1.01)  # prices too high: the gap is negative
    solved = SteeringPath(wrong, 300, path.weight).qp([1.0], 5.0)
    assert solved.relative_gap[0] < -1e-3
    assert solved.status[0] == "inaccurate"


@QUICK
@given(
    # Multipliers have no bound here: rows that nearly coincide violate by their distance times it.
    instances([kind for kind in KINDS if kind != "near_duplicates"]),
    st.sampled_from([1.0, 1 + 1e-15, 1 + 1e-14, 1 + 1e-12, 1 + 1e-9, 1 + 1e-6]),
)
def test_socp_at_its_limit_is_certified(problem, part):
    decoder, weight = problem
    path = SteeringPath.fit(decoder, weight).extend(np.inf)
    if not path.feasible:
        return
    r = np.array([0.1, 3.0])
    solved = path.socp(r, part * r * path.knots.least_norm, tolerance=1e-7)
    assert (solved.status == "optimal").all(), solved.relative_gap
    assert_feasible(decoder, weight, solved)


def test_changing_the_callers_arrays_changes_no_path():
    decoder, weight = instance("gaussian", 60, 8, 0)
    given_decoder, given_weight = decoder.copy(), weight.copy()
    path = SteeringPath.fit(given_decoder, given_weight)
    digests = SteeringPath.fit(decoder, weight).digests
    given_decoder *= 2
    given_weight *= 2
    fresh = SteeringPath.fit(decoder, weight)
    np.testing.assert_array_equal(path.qp([2.0], 3.0).vector, fresh.qp([2.0], 3.0).vector)
    assert path.digests == digests


NEAR = (1e-2, 1e-5, 6e-8, 1e-8, 1e-9, 3e-10, 1e-11, 1e-15)


@pytest.mark.parametrize("distance", NEAR)
def test_near_duplicates_are_followed_to_the_end(distance):
    for seed in range(12):
        decoder, weight = near_duplicates(100, 32, seed, distance)
        path = SteeringPath.fit(decoder, weight).extend(np.inf)
        solved = path.qp(np.geomspace(0.1, 1e5, 200), 1.0)
        assert (solved.status == "optimal").all(), (seed, np.abs(solved.relative_gap).max())
        budgets = path.socp(np.ones(50), np.linspace(1.0, 1.4, 50) * path.knots.least_norm)
        assert (budgets.status == "optimal").all(), seed


def test_copies_normalised_in_float32_are_followed_to_the_end():
    for seed in range(30):
        rng = np.random.default_rng(seed)
        rows = rng.standard_normal((100, 32)).astype(np.float32)
        decoder = np.concatenate([rows, np.float32(1.7) * rows, np.float32(0.3) * rows])
        decoder /= np.linalg.norm(decoder, axis=1, keepdims=True)
        path = SteeringPath.fit(decoder, rng.standard_normal(32)).extend(np.inf)
        assert (path.qp(np.geomspace(0.1, 1e4, 200), 1.0).status == "optimal").all(), seed


def test_where_float64_ends_only_the_inputs_beyond_fail(monkeypatch):
    decoder, weight = unit_dictionary(400, 16)
    whole = SteeringPath.fit(decoder, weight).extend(np.inf)
    step = Homotopy.step

    def stuck(self):
        if len(self.active) == 6:
            raise DegeneratePathError("stuck")
        return step(self)

    monkeypatch.setattr(Homotopy, "step", stuck)
    path = SteeringPath.fit(decoder, weight)
    solved = path.qp([0.1, 1e4, -1.0, 0.1], 1.0)
    assert solved.status.tolist() == ["optimal", "failed", "already_satisfied", "optimal"]
    assert solved.solved.tolist() == [True, False, True, True]
    assert np.isnan(solved.objective[1]) and np.isnan(solved.vector[1]).all()
    assert solved.l0[1] == -1 and solved.delta[[1]].nnz == 0
    np.testing.assert_allclose(solved.vector[0], whole.qp([0.1], 1.0).vector[0], atol=1e-10)
    low, high = whole.knots.norm[-1] * 1.01, whole.knots.norm[1] * 1.01
    assert path.socp([1.0, 1.0], [low, high]).status.tolist() == ["failed", "optimal"]
    assert path.at([1e4, 0.1], [1.0, 0.1], "qp", 1.0).status.tolist()[0] == "failed"
    with pytest.raises(DegeneratePathError):
        path.extend(np.inf)


def test_a_slope_above_rounding_is_a_violation_that_grows_with_s():
    """A row that comes in only far out on the last ray, by a slope taken for flat there."""
    decoder, weight = np.array([[1.0, 0.0], [-1.0, 1e-13]]), np.ones(2)
    path = SteeringPath.fit(decoder, weight).extend(np.inf)
    solved = path.qp([1.0, 1.0], [2.0, 1e15])
    true = 1e15 * ((decoder @ weight)[1] - decoder[1] @ path.knots.v[-1]) - 1.0
    assert true > 90
    assert solved.dual_violation[1] >= true
    assert solved.status.tolist() == ["optimal", "inaccurate"]


def test_the_violation_shown_is_that_of_the_multipliers_of_the_bound():
    """Far along the ray, where those of a nearer point give the better bound."""
    decoder, weight = unit_dictionary(300, 16)
    path = SteeringPath.fit(decoder, weight).extend(np.inf)
    slope = path.knots.violation.copy()
    slope[-1] = 1e-10
    path = SteeringPath(replace(path.knots, violation=slope), 300, path.weight)
    knots, r = path.knots, 2.0
    near = path.socp([r], r * knots.norm[3])
    assert near.dual_violation[0] == pytest.approx(knots.violation[4], abs=1e-12)
    solved = path.socp([r], r * knots.least_norm)
    assert solved.position[0] == np.inf
    assert 0 < solved.dual_violation[0] < 1.0
    # Every violation says at which distance on the ray its multipliers are: theirs is the bound.
    t = (solved.dual_violation[0] - knots.violation[-2]) / slope[-1]
    mu, v = knots.mu[-2] + t * knots.mu[-1], knots.v[-2] + t * knots.v[-1]
    bound = (mu * r - solved.parameter[0] * np.linalg.norm(v)) / (1 + solved.dual_violation[0])
    assert solved.dual_objective[0] == pytest.approx(bound, rel=1e-6)


def test_ties_that_least_squares_do_not_settle_end_the_path(monkeypatch):
    decoder, weight = np.eye(4), np.array([3.0, 2.0, 1.0, 1.0])  # two rows come in at one price
    assert SteeringPath.fit(decoder, weight).qp([9.0], 1.0).status[0] == "optimal"
    monkeypatch.setattr(homotopy, "nonnegative_least_squares", lambda *_: None)
    solved = SteeringPath.fit(decoder, weight).qp([0.1, 9.0, -1.0], 1.0)
    assert solved.status.tolist() == ["optimal", "failed", "already_satisfied"]
