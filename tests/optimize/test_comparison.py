import numpy as np
import pytest
from optimize_instances import unit_dictionary

from steering_core.optimize.comparison import signed_saving
from steering_core.optimize.working_set import WorkingSet


def test_reports_how_much_smaller_it_gets():
    decoder, weight = unit_dictionary(200, 16)
    rng = np.random.default_rng(0)
    active = rng.exponential(size=(3, 200)) * (rng.random((3, 200)) < 0.3)
    active[2] = 0.0
    solver = WorkingSet(decoder, weight)
    table = signed_saving(solver, [3.0, -1.0, 3.0], active, lam=1.0)
    assert 0 < table.saving[0] < 1
    assert np.isnan(table.saving[1])  # nothing to save
    assert table.saving[2] == pytest.approx(0.0, abs=1e-9)  # nothing to turn down
    assert table.objective_signed[0] == pytest.approx(
        table.objective_positive[0] * (1 - table.saving[0])
    )


def test_wants_one_program():
    solver = WorkingSet(np.eye(3), np.ones(3))
    for both in ({}, {"lam": 1.0, "epsilon": 1.0}):
        with pytest.raises(ValueError, match="one of lam and epsilon"):
            signed_saving(solver, [1.0], np.zeros(3), **both)
