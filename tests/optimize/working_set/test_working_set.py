import numpy as np
import osqp
import pytest
from optimize_instances import unit_dictionary
from scipy import sparse

from steering_core.optimize.path import SteeringPath
from steering_core.optimize.working_set.active_set import ActiveSet, Program, finish_qp
from steering_core.optimize.working_set.bounds import Limits, ablation_limits, box_limits, shared
from steering_core.optimize.working_set.solver import WorkingSet


def directions_like(weight, k, seed):
    rng = np.random.default_rng(seed)
    return np.stack([weight, *rng.standard_normal((k - 1, weight.size))])


def test_margins_that_no_free_feature_meets_are_no_optimum():
    # Tight margins, no free column: the equations of that active set are empty, not satisfied.
    gram, margins = np.eye(2), np.array([[1.0, 0.5]])
    program = Program(gram, margins, np.full(2, np.inf), np.ones(2))
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
    pairs = [
        (working_set.qp(r, qp_lambda), path.qp(r, qp_lambda)) for qp_lambda in (0.1, 3.0, 50.0)
    ]
    pairs += [(working_set.socp(r, e), path.socp(r, e)) for e in (2.0, 3.0, 50.0)]
    for mine, exact in pairs:
        assert (mine.status == exact.status).all()
        np.testing.assert_allclose(mine.objective, exact.objective, rtol=1e-9)
        np.testing.assert_array_equal(mine.l0, exact.l0)
        np.testing.assert_allclose(mine.vector, exact.vector, atol=1e-7)
        assert (mine.dual_violation[mine.solved] <= 1e-8).all()
        moved = mine.solved & (r > 0)
        assert (mine.rounds[moved] >= 1).all() and (mine.rounds[r <= 0] == 0).all()
        assert (mine.iterations[r <= 0] == 0).all() and (mine.inner[r <= 0] == "").all()
    assert {"infeasible", "optimal", "already_satisfied"} == set(pairs[3][0].status)


def test_warm_starts_save_iterations():
    decoder, weight = unit_dictionary(2000, 48)
    directions = np.stack([weight, decoder[20].astype(float)])
    steps = np.random.default_rng(1).standard_normal((12, 2))
    r = 1.5 + 0.05 * np.cumsum(steps, axis=0)  # shortfalls of one text, token after token
    solved = {}
    for warm in (True, False):
        solver = WorkingSet(decoder, directions, warm=warm)
        solver.qp(r, 3.0)  # takes its columns in
        solved[warm] = solver.qp(r, 3.0)
        assert (solved[warm].inner == "osqp").all()  # no other solver's iterations in the sum
    assert solved[True].iterations.sum() < 0.8 * solved[False].iterations.sum()


def test_the_factorisation_is_kept_while_the_columns_stay(monkeypatch):
    decoder, weight = unit_dictionary(500, 24)
    solver, r = WorkingSet(decoder, weight), np.linspace(0.5, 3.0, 6)
    solver.qp(r, 3.0)  # takes its columns in
    setups, setup = [], osqp.OSQP.setup
    monkeypatch.setattr(osqp.OSQP, "setup", lambda *a, **k: setups.append(1) or setup(*a, **k))
    again = solver.qp(r, 3.0)
    assert not setups and (again.rounds == 1).all() and (again.inner == "osqp").all()


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
        (lambda s: s.qp(1.0, 1.0), "shortfall"),
        (lambda s: s.qp([[1.0, 1.0]], 1.0, ablation_limits(np.ones(3))), "activations"),
        (lambda s: s.qp([[1.0, 1.0]], 1.0, box_limits(np.ones(3), 1.0)), "largest"),
        (lambda s: s.qp([[1.0, 1.0]], 0.0), "qp_lambda"),
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
    r = np.array([2.0, 4.0])
    free = solver.qp(r, 0.01, Limits(up=0.3)).residual_norm  # the budget is slack at this norm
    least = solver.qp(r, 1e6, Limits(up=0.3)).residual_norm
    for part in (0.02, 0.3, 0.9):
        epsilon = least + part * (free - least)
        solved = solver.socp(r, epsilon, Limits(up=0.3))
        assert solved.solved.all() and (solved.status == "optimal").all()
        np.testing.assert_allclose(solved.residual_norm, epsilon, rtol=1e-9)
        assert np.isclose(solved.delta.max(axis=1).toarray(), 0.3).any()
        assert (solved.delta.max(axis=1).toarray() <= 0.3).all()
        assert solved.dual_violation.max() <= 1e-8
        assert np.abs(solved.relative_gap).max() <= 1e-8
