"""The path to its end, or to where float64 ends."""

import logging

import numpy as np
from optimize_instances import unit_dictionary

from steering_core.optimize.homotopy import DegeneratePathError, Homotopy
from steering_core.optimize.path import SteeringPath
from steering_core.optimize.whole_path import whole_path

QUERIES = ([0.1, 1e4, -1.0, 0.1], 1.0)


def test_a_whole_path_answers_everything_from_its_file(tmp_path):
    problem = unit_dictionary(400, 16)
    path = whole_path(*problem)
    assert path.knots.complete
    path.save(tmp_path / "path")
    loaded, asked = SteeringPath.load(tmp_path / "path"), SteeringPath.fit(*problem)
    np.testing.assert_array_equal(loaded.qp(*QUERIES).vector, asked.qp(*QUERIES).vector)
    norms = np.geomspace(path.knots.norm[0] * 1.1, path.knots.least_norm * 0.9, 50)
    found, want = (each.socp(np.ones(50), norms) for each in (loaded, asked))
    np.testing.assert_array_equal(found.vector, want.vector)
    assert found.status.tolist() == want.status.tolist()
    assert {"optimal", "infeasible"} <= set(found.status)


def test_where_float64_ends_the_file_knows_it(tmp_path, monkeypatch, caplog):
    """Queries beyond have failed then; nobody is asked to fit the path further."""
    step = Homotopy.step

    def stuck(self):
        if len(self.active) == 6:
            raise DegeneratePathError("stuck")
        return step(self)

    monkeypatch.setattr(Homotopy, "step", stuck)
    with caplog.at_level(logging.WARNING):
        path = whole_path(*unit_dictionary(400, 16))
    assert "will have failed: stuck" in caplog.text
    path.save(tmp_path / "path")
    loaded = SteeringPath.load(tmp_path / "path")
    assert loaded.stuck and not loaded.knots.complete
    status = ["optimal", "failed", "already_satisfied", "optimal"]
    assert loaded.qp(*QUERIES).status.tolist() == path.qp(*QUERIES).status.tolist() == status
    low = path.knots.norm[-1] * 0.999
    assert loaded.socp([1.0], [low]).status.tolist() == ["failed"]
