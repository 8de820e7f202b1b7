import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from optimize_instances import (
    assert_feasible,
    instance,
    instances,
    unit_dictionary,
)

from benchmarks.reference import solve_reference
from steering_core.optimize.path import SteeringPath

QUICK = settings(max_examples=60, deadline=None)
#: Margins to gain; below zero they are there already.
SHORTFALLS = st.one_of(st.floats(0.05, 20), st.floats(0.05, 20), st.floats(-5, 0))


def assert_already_satisfied(mine, reference):
    assert mine.status[0] == "already_satisfied" and mine.objective[0] == 0
    assert mine.delta.nnz == 0 and not mine.vector.any()
    assert reference.status != "infeasible"
    assert reference.objective == pytest.approx(0, abs=1e-6)


@QUICK
@given(instances(), SHORTFALLS, st.floats(0.01, 100))
def test_qp_equals_the_reference(problem, r, qp_lambda):
    decoder, weight = problem
    mine = SteeringPath.fit(decoder, weight).qp([r], qp_lambda)
    reference = solve_reference(decoder, weight, r, qp_lambda=qp_lambda)
    if r <= 0:
        assert_already_satisfied(mine, reference)
        return
    assert mine.status[0] == ("infeasible" if reference.status == "infeasible" else "optimal")
    if mine.solved[0]:
        assert_feasible(decoder, weight, mine)
        assert mine.objective[0] == pytest.approx(reference.objective, rel=1e-5, abs=1e-7)
        assert mine.objective[0] <= reference.objective * (1 + 1e-5)
        assert abs(mine.relative_gap[0]) <= 1e-8
        assert mine.dual_violation[0] <= 1e-8


@QUICK
@given(instances(), SHORTFALLS, st.sampled_from([0.3, 0.9, 1.02, 1.3, 3.0, 100.0]))
def test_socp_equals_the_reference(problem, r, part):
    decoder, weight = problem
    path = SteeringPath.fit(decoder, weight).extend(np.inf)
    epsilon = part * abs(r) * (path.knots.least_norm or 1.0)
    mine = path.socp([r], epsilon)
    if r <= 0:
        assert_already_satisfied(mine, solve_reference(decoder, weight, r, epsilon=epsilon))
        return
    if not path.feasible or part < 1:
        assert solve_reference(decoder, weight, r, epsilon=epsilon).status == "infeasible"
        assert mine.status[0] == "infeasible"
        assert np.isnan(mine.objective[0])
        assert np.isnan(mine.vector).all()
        assert mine.delta.nnz == 0
        assert mine.l0[0] == -1
        return
    reference = solve_reference(decoder, weight, r, epsilon=epsilon)
    assert mine.status[0] == "optimal"
    assert_feasible(decoder, weight, mine, epsilon)
    assert mine.objective[0] == pytest.approx(reference.objective, rel=2e-5, abs=1e-7)
    assert abs(mine.relative_gap[0]) <= 1e-8


@QUICK
@given(instances())
def test_dual_multipliers_certify_on_the_full_dictionary(problem):
    decoder, weight = problem
    knots = SteeringPath.fit(decoder, weight).extend(np.inf).knots
    if not np.isfinite(knots.mu[0]):
        assert (decoder @ weight <= 1e-9).all()
        return
    finite = slice(0, knots.s.size)
    excess = knots.mu[finite, None] * (decoder @ weight) - knots.v[finite] @ decoder.T - 1
    np.testing.assert_allclose(
        knots.violation[finite], np.maximum(excess.max(axis=1), 0), atol=1e-9
    )
    assert (np.diff(knots.s) > 0).all()


@QUICK
@given(instances())
def test_norm_falls_and_objective_rises(problem):
    decoder, weight = problem
    path = SteeringPath.fit(decoder, weight).extend(np.inf)
    if not path.feasible:
        return
    s = np.geomspace(1e-3, 1e3, 200)
    unit = path.qp(np.ones(200), s)  # u(s)
    assert (np.diff(unit.residual_norm) <= 1e-9 * unit.residual_norm[:-1]).all()
    assert (np.diff(unit.l1) >= -1e-9 * unit.l1[:-1]).all()
    assert (np.diff(unit.objective) >= -1e-9 * unit.objective[:-1]).all()
    more = path.qp(s, 1.0)
    assert (np.diff(more.objective) > 0).all()


@QUICK
@given(instances(), st.integers(0, 1000))
def test_order_of_rows_does_not_matter(problem, seed):
    decoder, weight = problem
    order = np.random.default_rng(seed).permutation(decoder.shape[0])
    r = np.array([0.5, 2.0, 7.0])
    first = SteeringPath.fit(decoder, weight).qp(r, 0.7)
    second = SteeringPath.fit(decoder[order], weight).qp(r, 0.7)
    np.testing.assert_allclose(first.objective, second.objective, rtol=1e-9)
    np.testing.assert_allclose(first.vector, second.vector, atol=1e-7)


@QUICK
@given(instances(), st.floats(0.1, 10))
def test_scaling_rows_and_penalty_together_changes_coefficients_only(problem, scale):
    decoder, weight = problem
    # δ' = δ/c on rows c·d gives the same vector; its cost is 1/c of it, so λ must follow.
    first = SteeringPath.fit(decoder, weight).qp([3.0], 0.7)
    second = SteeringPath.fit(decoder * scale, weight).qp([3.0], 0.7 / scale)
    np.testing.assert_allclose(first.vector, second.vector, atol=1e-6)
    np.testing.assert_allclose(first.objective / scale, second.objective, rtol=1e-8)


def test_scaling_one_row_does_matter():
    decoder, weight = instance("gaussian", 12, 4, 3)
    before = SteeringPath.fit(decoder, weight).qp([3.0], 0.7).objective
    used = SteeringPath.fit(decoder, weight).qp([3.0], 0.7).delta.indices[0]
    decoder[used] *= 10
    assert SteeringPath.fit(decoder, weight).qp([3.0], 0.7).objective < before


def test_adding_duplicates_zeros_and_useless_rows_changes_nothing():
    decoder, weight = instance("gaussian", 20, 6, 1)
    more = np.concatenate([decoder, decoder, np.zeros((3, 6)), decoder[:5] * 0.5])
    r = np.array([0.1, 1.0, 10.0])
    first, second = (SteeringPath.fit(d, weight).qp(r, 1.0) for d in (decoder, more))
    np.testing.assert_allclose(first.objective, second.objective, rtol=1e-10)
    assert second.delta.indices.max() < 20  # of equal rows the first, of parallel ones the longer


def test_already_satisfied_is_exactly_zero():
    decoder, weight = instance("gaussian", 20, 6, 1)
    path = SteeringPath.fit(decoder, weight)
    for solved in (path.qp([-1.0, 0.0], 1.0), path.socp([-1.0, 0.0], 0.0)):
        assert (solved.status == "already_satisfied").all()
        assert solved.delta.nnz == 0
        assert (solved.vector == 0).all()
        assert (solved.objective == 0).all() and (solved.l0 == 0).all()
    assert path.knots.s.size == 1  # nothing had to be fitted


def test_no_feature_raises_the_probe():
    path = SteeringPath.fit(-np.eye(3), np.ones(3))
    assert not path.feasible
    assert list(path.qp([1.0, -1.0], 1.0).status) == ["infeasible", "already_satisfied"]
    assert list(path.socp([1.0], 9.0).status) == ["infeasible"]


def test_slack_budget_gives_the_cheapest_feature():
    decoder, weight = instance("gaussian", 20, 6, 1)
    gain = decoder @ weight
    solved = SteeringPath.fit(decoder, weight).socp([2.0], 1e6)
    assert solved.position[0] == 0
    assert solved.delta.indices.tolist() == [gain.argmax()]
    assert solved.objective[0] == pytest.approx(2.0 / gain.max())


def test_infeasible_below_the_inverse_norm_of_the_probe():
    decoder, weight = unit_dictionary(400, 12)
    path = SteeringPath.fit(decoder, weight)
    limit = 3.0 / np.linalg.norm(weight)
    assert path.socp([3.0], limit * 0.999).status[0] == "infeasible"
    assert path.knots.s.size == 1  # known without the path
    assert path.socp([3.0], limit * 1.001).status[0] == "optimal"


def test_path_is_fitted_only_as_far_as_needed_and_extends_without_a_trace():
    decoder, weight = unit_dictionary(3000, 40)
    lazy = SteeringPath.fit(decoder, weight)
    lazy.qp([1.0], 10.0)
    short = lazy.knots.s.size
    assert not lazy.knots.complete and lazy.knots.reach >= 10
    lazy.qp([1.0], 1e4)
    assert lazy.knots.s.size > short
    whole = SteeringPath.fit(decoder, weight, s=np.inf)
    r = np.linspace(0.1, 30, 50)
    np.testing.assert_allclose(lazy.qp(r, 3.0).vector, whole.qp(r, 3.0).vector, atol=1e-10)


def test_working_columns_of_the_engine_lose_nothing(monkeypatch):
    decoder, weight = unit_dictionary(1500, 30, seed=5)
    whole = SteeringPath.fit(decoder, weight, s=np.inf).knots
    monkeypatch.setattr("steering_core.optimize.follow._WORKING", 8)
    narrow = SteeringPath.fit(decoder, weight, s=np.inf).knots
    np.testing.assert_allclose(narrow.s, whole.s, rtol=1e-6)
    assert narrow.violation.max() < 1e-8


def test_coordinates_rebuild_the_solutions():
    decoder, weight = unit_dictionary(300, 16)
    path = SteeringPath.fit(decoder, weight)
    r = np.linspace(-1, 9, 40)
    for program, solved in (("qp", path.qp(r, 2.0)), ("socp", path.socp(r, 3.0))):
        again = path.at(solved.position, solved.shortfall, program, solved.parameter)
        assert (again.status == solved.status).all()
        np.testing.assert_array_equal(again.vector, solved.vector)
        np.testing.assert_array_equal(again.relative_gap, solved.relative_gap)


def test_expansion_of_some_rows():
    decoder, weight = unit_dictionary(300, 16)
    solved = SteeringPath.fit(decoder, weight).qp(np.linspace(-1, 9, 40), 2.0)
    delta, vector = solved.expand([3, 30])
    np.testing.assert_array_equal(vector, solved.vector[[3, 30]])
    np.testing.assert_array_equal(delta.toarray(), solved.delta.toarray()[[3, 30]])


def test_parameter_may_differ_by_input():
    decoder, weight = unit_dictionary(300, 16)
    path = SteeringPath.fit(decoder, weight)
    both = path.qp([1.0, 2.0], [0.5, 5.0])
    assert both.objective[1] == path.qp([2.0], 5.0).objective[0]


def test_torch_float32_decoder_equals_numpy():
    decoder, weight = unit_dictionary(300, 16)
    first = SteeringPath.fit(torch.from_numpy(decoder), torch.from_numpy(weight)).qp([2.0], 3.0)
    second = SteeringPath.fit(decoder, weight).qp([2.0], 3.0)
    np.testing.assert_array_equal(first.vector, second.vector)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_equals_cpu():
    decoder, weight = unit_dictionary(3000, 40)
    r = np.linspace(0.1, 30, 50)
    first = SteeringPath.fit(decoder, weight, device="cuda").qp(r, 3.0)
    second = SteeringPath.fit(decoder, weight).qp(r, 3.0)
    np.testing.assert_allclose(first.vector, second.vector, atol=1e-9)


class TestBadInput:
    GOOD = (np.eye(3), np.ones(3))

    @pytest.mark.parametrize(
        ("decoder", "weight", "name"),
        [
            (np.full((3, 3), np.nan), np.ones(3), "decoder"),
            (np.ones(3), np.ones(3), "decoder"),
            (np.zeros((0, 3)), np.ones(3), "decoder"),
            (np.eye(3), np.ones(4), "probe_weight"),
            (np.eye(3), np.ones((3, 1)), "probe_weight"),
            (np.eye(3), [1.0, np.inf, 0.0], "probe_weight"),
            ("text", np.ones(3), "decoder"),
            (1j * np.eye(3), np.ones(3), "decoder"),
            (torch.eye(3) * 1j, np.ones(3), "decoder"),
            ([[1.0], [1.0, 2.0]], np.ones(2), "decoder"),
        ],
    )
    def test_fit(self, decoder, weight, name):
        with pytest.raises(ValueError, match=name):
            SteeringPath.fit(decoder, weight)

    @pytest.mark.parametrize(
        ("shortfall", "qp_lambda", "name"),
        [
            ([np.nan], 1.0, "shortfall"),
            ([[1.0]], 1.0, "shortfall"),
            ([[1.0], [1.0, 2.0]], 1.0, "shortfall"),
            (["a"], 1.0, "shortfall"),
            ([1.0], 0.0, "qp_lambda"),
            ([1.0], -1.0, "qp_lambda"),
            ([1.0], np.nan, "qp_lambda"),
            ([1.0, 2.0, 3.0], [1.0, 2.0], "qp_lambda"),
        ],
    )
    def test_qp(self, shortfall, qp_lambda, name):
        with pytest.raises(ValueError, match=name):
            SteeringPath.fit(*self.GOOD).qp(shortfall, qp_lambda)

    @pytest.mark.parametrize("epsilon", [-1.0, np.nan, [1.0, -1.0]])
    def test_socp(self, epsilon):
        with pytest.raises(ValueError, match="epsilon"):
            SteeringPath.fit(*self.GOOD).socp([1.0, 2.0], epsilon)

    def test_at(self):
        path = SteeringPath.fit(*self.GOOD)
        with pytest.raises(ValueError, match="program"):
            path.at([1.0], [1.0], "lp", 1.0)
        with pytest.raises(ValueError, match="position"):
            path.at([-1.0], [1.0], "qp", 1.0)
        for bad in (np.nan, -1.0, None, "far", [1.0, 2.0], torch.ones(2)):
            with pytest.raises(ValueError, match="s must"):
                path.extend(bad)
            with pytest.raises(ValueError, match="norm must"):
                path.extend(norm=bad)
        for bad in (np.nan, -1e-9, None):
            for solve in (path.qp, path.socp):
                with pytest.raises(ValueError, match="tolerance"):
                    solve([1.0], 1.0, tolerance=bad)
            with pytest.raises(ValueError, match="tolerance"):
                path.at([1.0], [1.0], "qp", 1.0, tolerance=bad)
        with pytest.raises(ValueError, match="position"):
            path.at([[1.0], [1.0, 2.0]], [1.0], "qp", 1.0)


def test_no_inputs_at_all():
    solved = SteeringPath.fit(np.eye(3), np.ones(3)).qp(np.zeros(0), 1.0)
    assert len(solved) == 0
    assert solved.vector.shape == (0, 3)
    assert solved.objective.shape == (0,)
