"""One margin with guards, held to the textbook formulation and to the path without guards."""

import itertools

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optimize_instances import KINDS, instance, unit_dictionary

from benchmarks.reference import solve_reference
from steering_core.optimize.guarded import GuardedProgram, guarded_dense
from steering_core.optimize.path import SteeringPath
from steering_core.optimize.substitution import dense_optima, substitute
from steering_core.optimize.working_set.bounds import Guards, irreducible
from steering_core.optimize.working_set.solver import WorkingSet

PARAMETER = {"qp": "qp_lambda", "socp": "epsilon"}


def textbook(decoder, weight, guards, r, program, parameter):
    """CVXPY's answer to the program as it is written."""
    rows = np.concatenate([np.atleast_2d(weight), guards.directions, -guards.directions])
    need = np.concatenate([np.atleast_1d(r), guards.bounds])
    finite = np.isfinite(need)
    return solve_reference(decoder, rows[finite], need[finite], **{PARAMETER[program]: parameter})


def objective(program, parameter, delta, decoder):
    value = delta.sum()
    return value + parameter / 2 * np.sum((delta @ decoder) ** 2) if program == "qp" else value


def drawn(kind, d_sae, d_model, m, seed, size):
    """``(decoder, weight, guards)``; ``size`` is κ relative to what the free solution moves."""
    rng = np.random.default_rng(seed)
    decoder, weight = instance(kind, d_sae, d_model, seed)
    directions = rng.standard_normal((m, d_model))
    free = SteeringPath.fit(decoder, weight).qp([1.0], 1.0).vector[0]
    moved = np.abs(directions @ np.nan_to_num(free))
    return decoder, weight, Guards.of(directions, size * np.maximum(moved, 1e-2))


GUARDED = st.builds(
    drawn,
    st.sampled_from([kind for kind in KINDS if kind != "near_duplicates"]),
    st.integers(2, 24),
    st.integers(2, 8),
    st.integers(1, 3),
    st.integers(0, 10_000),
    st.sampled_from([0.0, 0.1, 0.5, 0.9, 2.0]),
)


@settings(max_examples=60, deadline=None)
@given(GUARDED, st.sampled_from(["qp", "socp"]), st.sampled_from([0.3, 1.0, 5.0]))
def test_equals_the_textbook(world, program, parameter):
    decoder, weight, guards = world
    mine = getattr(GuardedProgram(decoder, weight, guards), program)([1.0], parameter)
    reference = textbook(decoder, weight, guards, 1.0, program, parameter)
    status = mine.status[0]
    if status == "infeasible":
        assert reference.status not in ("optimal",)
        assert np.isnan(mine.vector).all() and mine.l0[0] == -1
        return
    assert status == "optimal"
    delta, vector = mine.delta.toarray()[0], mine.vector[0]
    assert (delta >= 0).all() and weight @ vector >= 1.0 - 1e-8
    np.testing.assert_allclose(delta @ decoder, vector, atol=1e-8 * np.abs(vector).max())
    room = 1e-7 * (1.0 + np.abs(guards.directions) @ np.abs(decoder).T @ delta)
    assert (np.abs(mine.shifts[0]) <= guards.kappa + room).all()
    if program == "socp":
        assert np.linalg.norm(vector) <= parameter * (1 + 1e-7)
    assert mine.objective[0] == pytest.approx(objective(program, parameter, delta, decoder))
    assert abs(mine.relative_gap[0]) <= 1e-8
    if reference.status == "optimal":
        assert mine.objective[0] == pytest.approx(reference.objective, rel=1e-5, abs=1e-7)
    else:  # the textbook's solver gave up or has a proof within its tolerance: mine is a point
        assert reference.status in ("failed", "inaccurate", "infeasible")


@settings(max_examples=30, deadline=None)
@given(GUARDED, st.sampled_from(["qp", "socp"]))
def test_guards_without_a_bound_are_none(world, program):
    decoder, weight, guards = world
    wide = Guards.of(guards.directions, np.inf)
    r = np.array([-0.5, 0.3, 1.0, 4.0])
    mine = getattr(GuardedProgram(decoder, weight, wide), program)(r, 2.0)
    free = getattr(SteeringPath.fit(decoder, weight), program)(r, 2.0)
    assert (mine.status == free.status).all() and mine.on_path.all()
    np.testing.assert_array_equal(mine.objective, free.objective)
    np.testing.assert_array_equal(mine.vector, free.vector)


@settings(max_examples=25, deadline=None)
@given(GUARDED, st.sampled_from(["qp", "socp"]), st.integers(0, 1000))
def test_several_margins_with_guards_equal_the_textbook(world, program, seed):
    decoder, weight, guards = world
    # A second margin that the features can reach, as far as the first.
    weights = np.stack(
        [weight, weight + 0.5 * np.random.default_rng(seed).standard_normal(len(weight))]
    )
    margins = np.array([[1.0, 0.6], [0.3, -1.0], [-1.0, -0.2], [1.0, 0.6]])
    guarded = GuardedProgram(decoder, weights, guards)
    mine = getattr(guarded, program)(margins, 1.0)
    assert mine.status[2] == "already_satisfied" and not mine.vector[2].any()
    assert mine.objective[0] == mine.objective[3] or mine.status[0] == "infeasible"
    for i in (0, 1):
        reference = textbook(decoder, weights, guards, margins[i], program, 1.0)
        if mine.status[i] == "infeasible":
            assert reference.status != "optimal" and np.isnan(mine.vector[i]).all()
            continue
        vector = mine.vector[i]
        assert (weights @ vector >= margins[i] - 1e-6 * (1 + np.linalg.norm(vector))).all()
        room = 1e-6 * (1.0 + np.linalg.norm(guards.directions, axis=1) * np.linalg.norm(vector))
        assert (np.abs(mine.shifts[i]) <= guards.kappa + room).all()
        assert (mine.guard_prices[i] >= 0).all()
        if reference.status == "optimal" and mine.status[i] == "optimal":
            assert mine.objective[i] == pytest.approx(reference.objective, rel=1e-4, abs=1e-6)


def test_several_margins_name_the_guard_that_makes_them_infeasible():
    # Each margin alone is possible; the second needs the axis that the first guard holds.
    decoder = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0], [-1.0, 0.0, 0.0]])
    guards = Guards.of(np.eye(3)[[1, 0]], [0.5, 9.0], ["refusal", "component 1"])
    program = GuardedProgram(decoder, np.eye(3)[[0, 2]], guards)
    solved = program.qp(np.array([[1.0, 0.4], [1.0, 0.8], [2.0, 0.9], [1.0, -1.0]]), 1.0)
    assert solved.status.tolist() == ["optimal", "infeasible", "infeasible", "optimal"]
    assert solved.blocked_by == [(), ("refusal",), ("refusal",), ()]


@pytest.mark.parametrize("metric", [None, "tilted"])
@pytest.mark.parametrize("kappa", [0.0, 0.1, 10.0, np.inf])
def test_the_least_guarded_vector_without_features_is_the_textbooks(metric, kappa):
    rng = np.random.default_rng(4)
    if metric is not None:
        root = rng.standard_normal((8, 8))
        metric = root @ root.T / 8 + np.eye(8)
    inside = substitute(np.eye(8), metric)
    weights, directions = rng.standard_normal((2, 8)), rng.standard_normal((3, 8))
    guards = Guards.of(directions, [kappa, kappa, 0.4])
    margins = np.array([[1.0, 0.5], [2.0, -3.0], [-1.0, -1.0]])
    mine = guarded_dense(weights, margins, guards, inside)
    assert not mine.vector[2].any() and not mine.guard_prices[2].any()
    for i in (0, 1):
        v = cp.Variable(8)
        size = cp.quad_form(v, np.eye(8) if metric is None else metric)
        finite = np.isfinite(guards.kappa)
        sides = [sign * directions[finite] @ v <= guards.kappa[finite] for sign in (1, -1)]
        problem = cp.Problem(cp.Minimize(size / 2), [weights @ v >= margins[i], *sides])
        problem.solve(solver=cp.CLARABEL)
        np.testing.assert_allclose(mine.vector[i], v.value, atol=1e-5)
        prices = np.zeros(3)
        # At κ = 0 both sides bind, and only the difference of their multipliers is determined.
        prices[finite] = np.abs(sides[0].dual_value - sides[1].dual_value)
        np.testing.assert_allclose(mine.guard_prices[i], prices, atol=1e-4)
    np.testing.assert_allclose(mine.free_vector, dense_optima(weights, margins, inside))


def test_a_dense_program_names_the_guard_that_contradicts_its_margin():
    weights = np.array([[1.0, 1.0, 0.0]])
    guards = Guards.of(np.eye(3)[[2, 0, 1]], [0.0, 0.3, 0.3], ["far", "a", "b"])
    found = guarded_dense(weights, np.array([[0.5], [1.0]]), guards, substitute(np.eye(3)))
    np.testing.assert_allclose(found.vector[0], [0.25, 0.25, 0.0])
    assert np.isnan(found.vector[1]).all() and np.isnan(found.guard_prices[1]).all()
    assert found.blocked_by == [(), ("a", "b")]


@pytest.mark.parametrize("program", ["qp", "socp"])
def test_a_tighter_guard_never_lowers_the_objective(program):
    decoder, weight = unit_dictionary(400, 24)
    directions = np.random.default_rng(0).standard_normal((2, 24))
    r = np.linspace(0.2, 3.0, 5)
    values, parameter = [], {"qp": 2.0, "socp": 4.0}[program]
    for kappa in (np.inf, 1.0, 0.3, 0.1, 0.0):
        guarded = GuardedProgram(decoder, weight, Guards.of(directions, kappa))
        values.append(getattr(guarded, program)(r, parameter))
    assert values[0].on_path.all() and not values[-1].on_path.any()
    for wide, tight in itertools.pairwise(values):
        assert (tight.status == "optimal").all()
        assert (tight.objective >= wide.objective * (1 - 1e-9)).all()
    assert (np.abs(values[-1].shifts) <= 1e-9).all()
    assert (values[-1].objective > 1.001 * values[0].objective).all()


def test_the_prices_of_guards_are_the_slopes_of_the_objective():
    decoder, weight = unit_dictionary(400, 24)
    directions = np.random.default_rng(0).standard_normal((2, 24))
    step = 1e-5
    at = [
        GuardedProgram(decoder, weight, Guards.of(directions, [kappa, 0.2])).qp([2.0], 2.0)
        for kappa in (0.1, 0.1 + step)
    ]
    slope = (at[0].objective[0] - at[1].objective[0]) / step
    assert slope > 0 and at[0].guard_prices[0, 0] == pytest.approx(slope, rel=1e-3)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_a_wide_guard_beside_a_tight_one_does_not_blur_it(scale):
    decoder, weight = unit_dictionary(400, 24)
    directions = scale * np.random.default_rng(0).standard_normal((2, 24))
    guards = Guards.of(directions, [0.1 * scale, 1e7 * scale])
    both = WorkingSet(decoder, weight, guards=guards).qp([2.0], 2.0)
    one = WorkingSet(decoder, weight, guards=guards.only(np.array([0]))).qp([2.0], 2.0)
    assert both.status[0] == one.status[0] == "optimal"
    assert both.objective[0] == pytest.approx(one.objective[0], rel=1e-9)


def test_names_the_guard_that_makes_it_infeasible():
    # The only features that raise the probe also move the second axis; the third is free.
    decoder = np.array([[1.0, 1.0, 0.0], [1.0, 2.0, 0.5], [-1.0, 0.0, 1.0]])
    weight = np.array([1.0, 0.0, 0.0])
    guards = Guards.of(np.eye(3)[1:], [0.5, 0.5], ["refusal", "component 1"])
    program = GuardedProgram(decoder, weight, guards)
    solved = program.qp([0.2, 0.4, 1.0, 2.0, -1.0], 1.0)
    assert solved.status.tolist() == [
        *("optimal", "optimal", "infeasible", "infeasible", "already_satisfied")
    ]
    assert solved.blocked_by == [(), (), ("refusal",), ("refusal",), ()]


def test_an_input_that_is_infeasible_without_guards_blames_none():
    guards = Guards.of(np.array([[0.0, 1.0]]), 0.1)
    solved = GuardedProgram(np.array([[-1.0, 0.0]]), np.array([1.0, 0.0]), guards).qp([1.0], 1.0)
    assert solved.status[0] == "infeasible" and solved.blocked_by == [()]


def test_two_guards_that_only_together_are_too_much_are_both_named():
    together = {("a", "b"), ("a", "b", "c")}
    guards = Guards.of(np.eye(3), 1.0, "abc")
    assert irreducible(guards, lambda some: some.names not in together) == ("a", "b")


def test_the_working_set_takes_several_margins_with_guards():
    decoder, weight = unit_dictionary(300, 16)
    rng = np.random.default_rng(3)
    directions = np.stack([weight, rng.standard_normal(16)])
    guards = Guards.of(rng.standard_normal((2, 16)), 0.05)
    mine = WorkingSet(decoder, directions, guards=guards).qp(np.array([[2.0, 0.5]]), 1.5)
    rows = np.concatenate([directions, guards.rows])
    right = np.concatenate([[2.0, 0.5], guards.bounds])
    reference = solve_reference(decoder, rows, right, qp_lambda=1.5)
    assert mine.objective[0] == pytest.approx(reference.objective, rel=1e-6)
    assert (directions @ mine.vector[0] >= np.array([2.0, 0.5]) - 1e-9).all()
    # The multipliers are those of the dual bound: μᵀr − ‖ηv‖²/(2λ).
    nu = mine.budget_price[0] * mine.vector[0]
    assert mine.prices[0] @ right - nu @ nu / 3.0 == pytest.approx(mine.dual_objective[0])


@pytest.mark.parametrize(
    ("directions", "kappa", "names", "message"),
    [
        (np.eye(2), -1.0, (), "kappa must be >= 0"),
        (np.eye(2), [1.0, np.nan], (), "kappa must be >= 0"),
        (np.eye(2), [1.0, 1.0, 1.0], (), "kappa has 3"),
        (np.array([[np.nan, 1.0]]), 1.0, (), "guards holds NaN"),
        (np.eye(2), 1.0, ("a",), "names: there are 1"),
        (np.eye(2), 1.0, ("a", "a"), "names: two guards"),
    ],
)
def test_refuses_what_is_no_guard(directions, kappa, names, message):
    with pytest.raises(ValueError, match=message):
        Guards.of(directions, kappa, names)


def test_refuses_guards_of_another_length():
    with pytest.raises(ValueError, match=r"guards must be \(m, 2\)"):
        GuardedProgram(np.eye(2), np.ones(2), Guards.of(np.eye(3), 1.0))
