from dataclasses import replace

import numpy as np
import pytest
from optimize_instances import unit_dictionary

from steering_core.optimize.follow import Follower
from steering_core.optimize.frontier import curves, frontier, unit_frontier
from steering_core.optimize.homotopy import DegeneratePathError
from steering_core.optimize.path import SteeringPath


@pytest.fixture
def path():
    return SteeringPath.fit(*unit_dictionary(300, 16)).extend(np.inf)


def test_unit_frontier_is_the_path_itself(path):
    table = unit_frontier(path)
    assert table.position.iloc[0] == 0 and table.position.iloc[-1] == np.inf
    assert (np.diff(table.l1) >= -1e-9).all()
    assert (np.diff(table.residual_norm) <= 1e-9).all()
    assert table.l1.iloc[0] == pytest.approx(1 / (unit_dictionary(300, 16)[0] @ path.weight).max())
    assert table.residual_norm.iloc[-1] == pytest.approx(path.knots.least_norm)
    inner = table.iloc[3]
    at = path.qp([2.0], inner.position / 2.0)
    assert at.l1[0] == pytest.approx(2 * inner.l1)
    assert at.residual_norm[0] == pytest.approx(2 * inner.residual_norm)
    assert at.l0[0] == inner.l0


def test_points_of_the_sweep_lie_on_it(path):
    logits = np.array([-2.0, 0.1, 3.0])
    table = frontier(path, logits, tau=[0.5, 1.0], qp_lambda=[1.0, 5.0], epsilon=[0.9])
    assert len(table) == 6
    row = table[(table.tau == 1.0) & (table.parameter == 5.0)].iloc[0]
    solved = path.qp(1.0 - logits, 5.0)
    assert row.l1 == pytest.approx(solved.l1.mean())
    assert row.margin == pytest.approx((1.0 + 1.0 + 3.0) / 3)
    assert (row.n_solved, row.n_satisfied, row.n_infeasible) == (3, 1, 0)


def test_inputs_without_a_solution_are_counted_not_averaged(path):
    table = frontier(path, [-2.0, 0.4], tau=0.5, epsilon=[0.5, 0.0])
    assert table.n_infeasible.tolist() == [1, 2]
    assert table.l1.iloc[0] == pytest.approx(path.socp([0.1], 0.5).l1[0])
    assert np.isnan(table.l1.iloc[1])


def test_means_are_over_certified_solutions(path, monkeypatch):
    violation = path.knots.violation.copy()
    violation[3:] = 1e-3
    damaged = SteeringPath(replace(path.knots, violation=violation), 300, path.weight)
    near, far = 0.5 * path.knots.s[2], 2 * path.knots.s[3]
    row = frontier(damaged, [-near, -far, 1.0], tau=0.0, qp_lambda=[1.0]).iloc[0]
    assert (row.n_solved, row.n_satisfied, row.n_inaccurate, row.n_infeasible) == (2, 1, 1, 0)
    assert row.l1 == pytest.approx(path.qp([near], 1.0).l1[0] / 2)

    def stuck(self):
        raise DegeneratePathError("stuck")

    monkeypatch.setattr(Follower, "block", stuck)
    short = SteeringPath.fit(*unit_dictionary(300, 16))
    row = frontier(short, [-near, 1.0], tau=0.0, qp_lambda=[1.0]).iloc[0]
    assert (row.n_solved, row.n_failed, row.n_infeasible) == (1, 1, 0)


def test_features_between_two_knots_are_those_of_a_solution_there(path):
    table = unit_frontier(path)
    inner = table.iloc[1:-2]
    middle = (inner.position.to_numpy() + table.position.to_numpy()[2:-1]) / 2
    assert path.qp(np.ones(middle.size), middle).l0.tolist() == inner.l0_after.tolist()
    assert (inner.l0_after > inner.l0).any()
    assert path.qp([1.0], 2 * table.position.iloc[-2]).l0[0] == table.l0_after.iloc[-2]
    assert table.l0_after.isna().tolist() == [False] * (len(table) - 1) + [True]
    part = unit_frontier(SteeringPath.fit(*unit_dictionary(300, 16), s=5.0))
    assert part.l0_after.isna().sum() == 1


def test_nothing_fitted_gives_an_empty_table():
    assert unit_frontier(SteeringPath.fit(np.eye(3), np.ones(3))).empty


@pytest.fixture
def fitted():
    """A path as a saved one is: as far as some query needed."""
    return SteeringPath.fit(*unit_dictionary(300, 16), s=50.0)


LOGITS = np.random.default_rng(1).normal(size=9)


def test_norm_falls_and_l1_rises_along_lambda(fitted):
    table = curves(fitted, LOGITS, [2.0], points=30)
    curve = table[table["program"] == "qp"].sort_values("parameter")
    assert (np.diff(curve["residual_norm"]) <= 1e-12).all()
    assert (np.diff(curve["l1"]) >= -1e-12).all()


def test_every_point_of_a_curve_serves_every_input_on_the_fitted_range(fitted):
    reach = fitted.knots.s[-1]
    table = curves(fitted, LOGITS, [2.0, 4.0], points=11)
    assert table.notna().all(axis=None) and (table["n_solved"] == LOGITS.size).all()
    assert table.groupby(["program", "tau"]).size().tolist() == [11] * 4
    assert fitted.knots.s[-1] == reach
    longest = table[table["program"] == "qp"].groupby("tau")["parameter"].max()
    assert longest[2.0] == pytest.approx(reach / (2.0 - LOGITS.min()))


def test_no_curve_where_every_input_already_passes_or_there_is_none(fitted):
    assert curves(fitted, LOGITS, [float(LOGITS.min()) - 1.0]).empty
    assert curves(fitted, [], [1.0]).empty
    unfitted = SteeringPath.fit(np.eye(3), np.ones(3))
    assert curves(unfitted, LOGITS, [5.0]).empty
    assert list(curves(fitted, [], [1.0])) == list(curves(fitted, LOGITS, [2.0], points=2))


def test_a_budget_that_does_not_vary_is_one_point():
    """One feature only: its norm per logit is the same everywhere on the path."""
    path = SteeringPath.fit([[1.0, 0.0]], [1.0, 0.0], s=3.0)
    table = curves(path, [0.0, -1.0], [1.0], points=5)
    assert (table["program"] == "socp").sum() <= 2


def test_a_curve_never_asks_beyond_the_range_of_a_path_without_its_decoder(tmp_path):
    SteeringPath.fit(*unit_dictionary(2000, 400), s=1.0).save(tmp_path / "path.safetensors")
    bare = SteeringPath.load(tmp_path / "path.safetensors")
    assert not bare.knots.complete
    end = bare.knots.s[-1]
    worst = np.random.default_rng(0).uniform(0.1, 30.0, size=10000)
    rounded_up = worst[end / worst * worst > end]
    assert len(rounded_up) > 0
    for shortfall in rounded_up[:5]:
        assert len(curves(bare, [0.0], [shortfall], points=2))
