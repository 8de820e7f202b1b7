import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optimize_instances import instances, unit_dictionary
from scipy import sparse

from steering_core.optimize.active_set import ActiveSet, Program, finish_qp
from steering_core.optimize.limits import Limits, ablation_limits, box_limits, shared
from steering_core.optimize.path import SteeringPath
from steering_core.optimize.reference import solve_reference
from steering_core.optimize.working_set import WorkingSet

QUICK = settings(max_examples=40, deadline=None)
EASY = ("gaussian", "integer", "duplicates", "rank_deficient", "outside_cone")


def directions_like(weight, k, seed):
    rng = np.random.default_rng(seed)
    return np.stack([weight, *rng.standard_normal((k - 1, weight.size))])


def reference_of(decoder, directions, r, limits=None, **program):
    up, down = (limits or Limits()).rows(0, 1, len(decoder))
    return solve_reference(decoder, directions, r, lower=-down, upper=up, **program)


def assert_agrees(mine, reference, decoder, directions, epsilon=None):
    if mine.status[0] == "infeasible":
        assert reference.status == "infeasible"
        assert np.isnan(mine.objective[0]) and np.isnan(mine.vector).all()
        return
    # A feasible point with a certificate refutes a reference that gives up on a tiny gain.
    assert mine.status[0] == "optimal"
    if reference.status != "infeasible":
        assert mine.objective[0] == pytest.approx(reference.objective, rel=2e-5, abs=1e-7)
    assert abs(mine.relative_gap[0]) <= 1e-5
    delta = mine.delta.toarray()[0]
    size = np.abs(directions @ decoder.T) @ np.abs(delta)
    assert (directions @ decoder.T @ delta >= mine.shortfall[0] - 1e-9 * size - 1e-6).all()
    np.testing.assert_allclose(mine.vector[0], delta @ decoder, atol=1e-9)
    assert mine.l1[0] == pytest.approx(np.abs(delta).sum())
    if epsilon is not None:
        assert np.linalg.norm(mine.vector[0]) <= epsilon * (1 + 1e-5)


@QUICK
@given(instances(EASY), st.integers(1, 3), st.integers(0, 99), st.floats(0.1, 10))
def test_qp_with_several_directions_equals_the_reference(problem, k, seed, lam):
    decoder, weight = problem
    directions = directions_like(weight, k, seed)
    r = np.random.default_rng(seed).uniform(-0.5, 3.0, k)
    r[0] = abs(r[0])
    mine = WorkingSet(decoder, directions).qp(r[None], lam)
    assert_agrees(mine, reference_of(decoder, directions, r, lam=lam), decoder, directions)


@QUICK
@given(instances(("gaussian", "duplicates")), st.integers(1, 3), st.integers(0, 99))
def test_socp_with_several_directions_equals_the_reference(problem, k, seed):
    decoder, weight = problem
    directions = directions_like(weight, k, seed)
    r = np.random.default_rng(seed).uniform(0.2, 3.0, k)
    epsilon = float(np.random.default_rng(seed + 1).uniform(0.3, 12.0))
    mine = WorkingSet(decoder, directions).socp(r[None], epsilon)
    reference = reference_of(decoder, directions, r, epsilon=epsilon)
    assert_agrees(mine, reference, decoder, directions, epsilon)


@QUICK
@given(instances(EASY), st.integers(0, 99), st.floats(0.1, 10))
def test_signed_and_boxed_equal_the_reference(problem, seed, lam):
    decoder, weight = problem
    rng = np.random.default_rng(seed)
    activations = rng.exponential(size=len(decoder)) * (rng.random(len(decoder)) < 0.5)
    limits = Limits(up=rng.uniform(0.05, 2.0, len(decoder)), down=activations)
    mine = WorkingSet(decoder, weight).qp([1.0], lam, limits)
    reference = reference_of(decoder, weight[None], [1.0], limits, lam=lam)
    assert_agrees(mine, reference, decoder, weight[None])
    delta = mine.delta.toarray()[0]
    assert (delta <= limits.up).all() and (delta >= -limits.down).all()


def test_margins_that_no_free_feature_meets_are_no_optimum():
    # Tight margins, no free column: the equations of that active set are empty, not satisfied.
    gram, margins = np.eye(2), np.array([[1.0, 0.5]])
    program = Program(gram, margins, np.full(2, np.inf))
    nothing = ActiveSet(np.zeros(2, bool), np.zeros(2, bool), np.ones(1, bool))
    assert finish_qp(program, np.array([1.0]), nothing) is None


def test_a_tiny_gain_is_not_taken_for_none():
    decoder = np.array([[-2.4e-4], [0.86], [0.82]])
    mine = WorkingSet(decoder, np.array([-1e-3])).qp([1.8], 0.1)
    exact = SteeringPath.fit(decoder, np.array([-1e-3])).qp([1.8], 0.1)
    assert mine.status[0] == exact.status[0] == "optimal"
    assert mine.objective[0] == pytest.approx(exact.objective[0], rel=1e-9)


@pytest.mark.parametrize("cone_solver", ["clarabel", "scs"])
def test_equals_the_path(cone_solver):
    decoder, weight = unit_dictionary(3000, 40)
    path, working_set = (
        SteeringPath.fit(decoder, weight),
        WorkingSet(decoder, weight, cone_solver=cone_solver),
    )
    r = np.linspace(-0.5, 6.0, 14)
    pairs = [(working_set.qp(r, lam), path.qp(r, lam)) for lam in (0.1, 3.0, 50.0)]
    pairs += [(working_set.socp(r, e), path.socp(r, e)) for e in (2.0, 3.0, 50.0)]
    for mine, exact in pairs:
        assert (mine.status == exact.status).all()
        np.testing.assert_allclose(mine.objective, exact.objective, rtol=1e-9)
        np.testing.assert_array_equal(mine.l0, exact.l0)
        np.testing.assert_allclose(mine.vector, exact.vector, atol=1e-7)
        assert (mine.dual_violation[mine.solved] <= 1e-8).all()
        assert (mine.rounds[mine.solved] >= 0).all()
    assert {"infeasible", "optimal", "already_satisfied"} == set(pairs[3][0].status)


def test_warm_starts_save_iterations():
    decoder, weight = unit_dictionary(2000, 48)
    directions = np.stack([weight, decoder[20].astype(float)])
    steps = np.random.default_rng(1).standard_normal((12, 2))
    r = 1.5 + 0.05 * np.cumsum(steps, axis=0)  # shortfalls of one text, token after token
    iterations = {}
    for warm in (True, False):
        solver = WorkingSet(decoder, directions, warm=warm)
        solver.qp(r, 3.0)  # takes its columns in
        iterations[warm] = solver.qp(r, 3.0).iterations.sum()
    assert iterations[True] < 0.8 * iterations[False]


def test_warm_and_cold_give_the_same_solutions():
    decoder, weight = unit_dictionary(500, 24)
    r = np.linspace(0.5, 3.0, 6)
    warm, cold = (WorkingSet(decoder, weight, warm=w).qp(r, 3.0) for w in (True, False))
    np.testing.assert_allclose(warm.vector, cold.vector, atol=1e-9)


def test_ablation_makes_interventions_smaller_and_stops_at_zero():
    decoder, weight = unit_dictionary(200, 16)
    rng = np.random.default_rng(0)
    active = sparse.csr_array(rng.exponential(size=(4, 200)) * (rng.random((4, 200)) < 0.5))
    solver, r = WorkingSet(decoder, weight), np.full(4, 3.0)
    positive, signed = solver.qp(r, 1.0), solver.qp(r, 1.0, ablation_limits(active))
    assert (signed.objective <= positive.objective * (1 + 1e-12)).all()
    assert (signed.objective < positive.objective).sum() >= 3
    assert (signed.delta.toarray() >= -active.toarray()).all()
    assert (signed.delta.toarray() < 0).any()
    assert (positive.delta.toarray() >= 0).all()


def test_box_limits_hold_and_cost():
    decoder, weight = unit_dictionary(200, 16)
    solver = WorkingSet(decoder, weight)
    limits = box_limits(np.full(200, 0.1), 2.0)
    free, boxed = solver.qp([2.0], 1.0), solver.qp([2.0], 1.0, limits)
    assert boxed.delta.max() <= 0.2 < free.delta.max()
    assert boxed.objective[0] > free.objective[0]
    assert solver.qp([2.0], 1.0, box_limits(np.full(200, 1e-6), 1.0)).status[0] == "infeasible"


def test_prefiltered_columns_only_are_used():
    decoder, weight = unit_dictionary(200, 16)
    mask = np.zeros((2, 200), dtype=bool)
    mask[0, :50], mask[1, 50:90] = True, True
    solved = WorkingSet(decoder, weight).qp([2.0, 2.0], 1.0, Limits(up=np.where(mask, np.inf, 0)))
    for i in range(2):
        own = SteeringPath.fit(decoder[mask[i]], weight).qp([2.0], 1.0)
        assert solved.objective[i] == pytest.approx(own.objective[0], rel=1e-9)
        assert not solved.delta.toarray()[i][~mask[i]].any()


def test_shared_vector_serves_the_worst_input():
    decoder, weight = unit_dictionary(200, 16)
    directions = directions_like(weight, 2, 0)
    r = np.array([[1.0, 0.2], [0.5, 0.8]])
    worst, limits = shared(r, Limits(down=np.array([[0.5] * 200, [0.0] * 200])), 200)
    assert worst.tolist() == [1.0, 0.8]
    assert (limits.down == 0).all()
    solved = WorkingSet(decoder, directions).qp(worst[None], 1.0, limits)
    reached = solved.vector @ directions.T
    assert (reached >= r - 1e-9).all()


def test_satisfied_margins_cost_nothing():
    decoder, weight = unit_dictionary(200, 16)
    solver = WorkingSet(decoder, directions_like(weight, 2, 0))
    solved = solver.qp([[-1.0, 0.0]], 1.0)
    assert solved.status[0] == "already_satisfied"
    assert solved.objective[0] == 0 and solved.delta.nnz == 0
    assert (solved.vector == 0).all() and solved.relative_gap[0] == 0


def test_contradicting_directions_are_infeasible_under_a_budget():
    decoder, weight = unit_dictionary(200, 16)
    solver = WorkingSet(decoder, np.stack([weight, -weight]))
    assert solver.qp([[1.0, 1.0]], 1.0).status[0] == "infeasible"
    assert solver.socp([[1.0, 1.0]], 9.0).status[0] == "infeasible"
    assert solver.socp([[1.0, -2.0]], 0.0).status[0] == "infeasible"


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda s: s.qp([[1.0]], 1.0), "shortfall"),
        (lambda s: s.qp([[1.0, np.nan]], 1.0), "shortfall"),
        (lambda s: s.qp([[1.0, 1.0]], 0.0), "lam"),
        (lambda s: s.socp([[1.0, 1.0]], -1.0), "epsilon"),
        (lambda s: s.qp([[1.0, 1.0]], 1.0, Limits(up=np.ones(3))), "up"),
        (lambda s: s.qp([[1.0, 1.0]], 1.0, Limits(down=-1.0)), "down"),
        (lambda s: WorkingSet(np.eye(4), np.ones(3)), "directions"),
        (lambda s: WorkingSet(np.eye(4), np.ones(4), cone_solver="x"), "cone_solver"),
    ],
)
def test_bad_input_is_named(call, name):
    with pytest.raises(ValueError, match=name):
        call(WorkingSet(np.eye(4), np.eye(4)[:2]))


def test_a_feature_at_its_cap_is_no_dual_violation():
    rng = np.random.default_rng(3)
    decoder = rng.standard_normal((80, 10))
    decoder /= np.linalg.norm(decoder, axis=1, keepdims=True)
    weight = rng.standard_normal(10)
    solver = WorkingSet(decoder, weight)
    for epsilon in (2.0, 3.0, 50.0):
        solved = solver.socp([2.0, 4.0], epsilon, Limits(up=0.3))
        assert (solved.delta.max(axis=1).toarray() <= 0.3).all()
        assert np.nanmax(solved.dual_violation, initial=0.0) <= 1e-8
        assert np.nanmax(solved.relative_gap, initial=0.0) <= 1e-8
