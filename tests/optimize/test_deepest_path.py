"""The file that holds most of a path is the one that is read."""

import numpy as np
import pytest
from optimize_instances import unit_dictionary

from steering_core.optimize.deepest_path import deepest_path
from steering_core.optimize.path import SteeringPath


@pytest.fixture
def files(tmp_path):
    problem = unit_dictionary(2000, 200)
    for name, depth in (("short", 0.1), ("long", 100.0)):
        SteeringPath.fit(*problem, s=depth).save(tmp_path / name)
    return problem, tmp_path / "short", tmp_path / "long"


def test_the_deepest_is_read_in_any_order(files):
    _, short, long = files
    expected = SteeringPath.load(long).knots.s
    assert len(expected) > len(SteeringPath.load(short).knots.s)
    for order in ((short, long), (long, short), long):
        np.testing.assert_array_equal(deepest_path(order).knots.s, expected)


def test_a_shorter_path_is_a_beginning_of_it(files):
    knots = [SteeringPath.load(file).knots.s for file in files[1:]]
    np.testing.assert_array_equal(knots[1][: len(knots[0])], knots[0])


def test_no_path_and_paths_of_different_probes_are_refused(files, tmp_path):
    (decoder, weight), short, _ = files
    SteeringPath.fit(decoder, -weight).save(tmp_path / "other")
    with pytest.raises(ValueError, match="no path"):
        deepest_path([])
    with pytest.raises(ValueError, match="different"):
        deepest_path([short, tmp_path / "other"])
