"""Each program solved once for an input, anew at every position, or once for all."""

from dataclasses import replace

import numpy as np
import pytest
from small_world import D_MODEL, decoder, inputs, probe

from benchmarks.reference import solve_reference
from steering_core.config.methods import METHODS, is_adaptive, is_program, mode_of, program_of
from steering_core.config.schema import Settings
from steering_core.methods.programs import grid, solve_programs
from steering_core.methods.solution_vectors import SolutionVectors
from steering_core.optimize.path import SteeringPath

H = inputs()
IDS = [f"row {i}" for i in range(len(H))]
SETTINGS = Settings(
    qp_tau=[0.5, 3.0], qp_lambda=[0.2], socp_tau=[0.5], socp_epsilon=[0.6, 4.0, 40.0]
)
MODES = {
    "qp": ("qp_optimal", "qp_adaptive", "qp_shared"),
    "socp": ("convex_optimal", "socp_adaptive", "socp_shared"),
}


def test_methods_and_their_modes():
    assert {m for m in METHODS if is_program(m)} == {m for ms in MODES.values() for m in ms}
    for program, methods in MODES.items():
        assert [program_of(m) for m in methods] == [program] * 3
        assert [mode_of(m) for m in methods] == ["static", "adaptive", "shared"]
        assert [is_adaptive(m) for m in methods] == [False, True, False]
    for ask in (program_of, mode_of):
        with pytest.raises(ValueError, match="caa_repe is not a program"):
            ask("caa_repe")
    assert not is_adaptive("caa_repe")


@pytest.mark.parametrize("methods", MODES.values())
def test_modes_share_their_grid(methods):
    points = [grid(m, SETTINGS) for m in methods]
    assert [p.method for ps in points for p in ps] == [m for m in methods for _ in points[0]]
    rest = [[replace(p, method="") for p in ps] for ps in points]
    assert rest[0] == rest[1] == rest[2] and len(rest[0]) in (2, 3)


@pytest.fixture(scope="module")
def path():
    return SteeringPath.fit(decoder(), probe().weight_vector)


@pytest.mark.parametrize("methods", MODES.values())
def test_at_one_position_adaptive_is_static(methods, path, tmp_path):
    static, adaptive = (
        SolutionVectors(solve_programs(grid(m, SETTINGS), IDS, H, probe(), path), tmp_path, path)
        for m in methods[:2]
    )
    for index in static.points():
        rows = static.at(index, IDS), adaptive.at(index, IDS)
        np.testing.assert_array_equal(static.vectors(rows[0]), adaptive.vectors(rows[1]))
        assert rows[0].drop(columns="method").equals(rows[1].drop(columns="method"))


@pytest.mark.parametrize(("program", "methods"), MODES.items())
def test_a_shared_vector_is_the_optimum_for_the_worst_input(program, methods, path, tmp_path):
    """CVXPY with one margin constraint for every input that shares the vector."""
    outside = H[probe().decision(H) < 0.5]
    assert 3 <= len(outside) < len(H)
    points = grid(methods[2], SETTINGS)
    table = solve_programs(points, IDS, H, probe(), path, shared_by=outside.astype(np.float32))
    found = SolutionVectors(table, tmp_path, path)
    statuses = set()
    for point in points:
        rows = found.at(point.strength_index, IDS)
        assert rows["status"].nunique() == 1
        vectors = found.vectors(rows)
        np.testing.assert_array_equal(vectors, np.tile(vectors[0], (len(IDS), 1)))
        shortfall = point.tau - probe().decision(outside)
        weights = np.tile(probe().weight_vector, (len(outside), 1))
        kind = {"qp_lambda": point.qp_lambda} if program == "qp" else {"epsilon": point.epsilon}
        want = solve_reference(decoder(), weights, shortfall, **kind)
        statuses.add(want.status)
        assert rows["status"].iloc[0] == want.status
        if want.status == "infeasible":
            assert np.isnan(vectors).all()
            continue
        assert rows["objective"].iloc[0] == pytest.approx(want.objective, rel=1e-5)
        after = probe().decision(outside + vectors[0])
        assert after.min() == pytest.approx(point.tau, abs=1e-5)
        assert vectors.shape == (len(IDS), D_MODEL)
    assert statuses == ({"optimal", "infeasible"} if program == "socp" else {"optimal"})


def test_inputs_play_no_part_in_a_shared_vector(path):
    points = grid("qp_shared", SETTINGS)
    one, other = (
        solve_programs(points, IDS, h, probe(), path, shared_by=H[:9]) for h in (H, H + 5.0)
    )
    assert one.equals(other)
