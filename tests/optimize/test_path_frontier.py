import numpy as np
import pytest
from optimize_instances import unit_dictionary

from steering_core.optimize.frontier import frontier, unit_frontier
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
    table = frontier(path, logits, tau=[0.5, 1.0], lam=[1.0, 5.0], epsilon=[0.9])
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


def test_nothing_fitted_gives_an_empty_table():
    assert unit_frontier(SteeringPath.fit(np.eye(3), np.ones(3))).empty
