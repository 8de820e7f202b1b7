"""Every program, with every limit, on every kind of instance, against the textbook formulation."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optimize_instances import KINDS, instances
from reference_checks import LIMITS, Case, Problem, assert_right, cases

from steering_core.optimize.path import SteeringPath
from steering_core.optimize.working_set.bounds import Limits, shared
from steering_core.optimize.working_set.solver import WorkingSet

SCALES = st.sampled_from([1e-6, 1e-3, 1.0, 1e3, 1e6])


@settings(max_examples=400, deadline=None)
@given(cases())
def test_every_program_equals_the_reference(case):
    assert_right(case.build(), case.solve())


@pytest.mark.parametrize("program", ["qp", "socp"])
@pytest.mark.parametrize("limit", LIMITS)
def test_the_cases_meet_every_status(limit, program):
    """The property above says something about each status only if cases of each are drawn."""
    kinds = [(kind, d_sae) for d_sae in (3, 20) for kind in KINDS]
    drawn = [Case(kind, i, d_sae, 6, 2, limit, program) for i, (kind, d_sae) in enumerate(kinds)]
    statuses = [case.solve().status[0] for case in drawn]
    assert set(statuses) == {"optimal", "infeasible", "already_satisfied"}


@settings(max_examples=60, deadline=None)
@given(cases(), SCALES, SCALES, st.integers(0, 99))
def test_order_and_scale_change_nothing(case, rows, weights, seed):
    problem = case.build()
    decoder, (up, down) = problem.decoder, problem.bounds
    order = np.random.default_rng(seed).permutation(len(decoder))
    # δ/c on rows c·d is the same vector; margins w·v ≥ r hold with their scale.
    moved = Problem(
        decoder[order] * rows,
        problem.directions * weights,
        problem.r * weights,
        Limits(up=up[order] / rows, down=down[order] / rows),
        problem.program,
        problem.parameter / rows if case.program == "qp" else problem.parameter,
    )
    first, second = case.solve(), moved.working_set(case.cone_solver)
    assert first.status[0] == second.status[0]
    if first.solved[0]:
        assert second.objective[0] * rows == pytest.approx(first.objective[0], rel=1e-5)


@settings(max_examples=60, deadline=None)
@given(instances(), SCALES, SCALES, st.integers(0, 99))
def test_order_and_scale_do_not_matter_to_the_path(problem, rows, weights, seed):
    decoder, weight = problem
    order = np.random.default_rng(seed).permutation(len(decoder))
    first = SteeringPath.fit(decoder, weight)
    second = SteeringPath.fit(decoder[order] * rows, weight * weights)
    r = np.array([-1.0, 0.5, 2.0, 7.0])
    one, other = first.qp(r, 0.7), second.qp(r * weights, 0.7 / rows)
    assert (one.status == other.status).all()
    np.testing.assert_allclose(other.objective * rows, one.objective, rtol=1e-8)
    norm = first.extend(np.inf).knots.least_norm or 1.0
    for part in (0.5, 1.01, 1.5, 9.0):
        one, other = first.socp(r, part * norm * 2), second.socp(r * weights, part * norm * 2)
        assert (one.status == other.status).all()
        np.testing.assert_allclose(other.objective * rows, one.objective, rtol=1e-6)


@settings(max_examples=60, deadline=None)
@given(instances(), st.sampled_from(["qp", "socp"]), st.sampled_from(["clarabel", "scs"]),
       st.floats(0.05, 50.0))  # fmt: skip
def test_the_working_set_equals_the_path(problem, program, cone_solver, parameter):
    decoder, weight = problem
    path = SteeringPath.fit(decoder, weight)
    r = np.array([-1.0, 0.3, 3.0])
    if program == "socp":
        parameter *= path.extend(np.inf).knots.least_norm or 1.0
    exact = getattr(path, program)(r, parameter)
    mine = getattr(WorkingSet(decoder, weight, cone_solver=cone_solver), program)(r, parameter)
    assert (mine.status == exact.status).all()
    np.testing.assert_allclose(mine.objective, exact.objective, rtol=1e-6)


@settings(max_examples=100, deadline=None)
@given(cases(), st.integers(1, 4))
def test_a_shared_vector_is_the_best_that_serves_all(case, n):
    problem = case.build()
    d_sae, rng = len(problem.decoder), np.random.default_rng(case.seed)
    r = problem.r + rng.uniform(-1.0, 1.0, (n, case.k))
    up, down = (part * rng.uniform(0.5, 1.5, (n, d_sae)) for part in problem.bounds)
    worst, limits = shared(r, Limits(up=up, down=down), d_sae)
    mine = replace(problem, r=worst, limits=limits).working_set(case.cone_solver)
    # One margin per input and direction, as the definition of a shared vector reads.
    every = replace(problem, directions=np.tile(problem.directions, (n, 1)), r=r.ravel())
    for i in range(n):  # what it may do, it may do to each
        assert (
            mine.status[0] != "optimal"
            or ((mine.delta.toarray()[0] <= up[i]) & (mine.delta.toarray()[0] >= -down[i])).all()
        )
    assert_right(replace(every, limits=Limits(up=up.min(axis=0), down=down.min(axis=0))), mine)
