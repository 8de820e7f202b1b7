"""Strengths of every method, each at its own place in every table."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steering_core.config.methods import METHODS, is_program
from steering_core.config.schema import Settings
from steering_core.methods.programs import grid, make_program

positive = st.floats(1e-6, 1e6)
values = st.lists(positive, min_size=1, max_size=4, unique=True)


@given(strengths=values, tau=values, lam=values, epsilon=values)
def test_every_point_has_a_name_of_its_own(strengths, tau, lam, epsilon):
    settings = Settings(
        strengths=strengths, qp_tau=tau, qp_lambda=lam, socp_tau=tau, socp_epsilon=epsilon
    )
    for method in METHODS:
        points = grid(method, settings)
        names = {(p.strength_name, p.strength) for p in points}
        assert len(names) == len(points)
        assert [p.strength_index for p in points] == list(range(len(points)))
        assert {p.method for p in points} == {method}


@pytest.mark.parametrize("close", [[1.0, 1.0000001], [0.1, 0.1 + 1e-9]])
def test_values_that_round_to_the_same_digits_are_told_apart(close: list[float]):
    qp = grid("qp_optimal", Settings(qp_lambda=close, qp_tau=[0.5]))
    assert len({p.strength_name for p in qp}) == 2
    socp = grid("convex_optimal", Settings(socp_tau=close, socp_epsilon=[1.0]))
    assert len({p.strength_name for p in socp}) == 2


def test_programs_sweep_their_own_parameters():
    settings = Settings(qp_tau=[1, 2], qp_lambda=[0.5, 1], socp_tau=[0.5], socp_epsilon=[1, 3])
    qp = [(p.tau, p.qp_lambda, p.epsilon, p.strength) for p in grid("qp_optimal", settings)]
    assert qp == [(1, 0.5, None, 1), (2, 0.5, None, 2), (1, 1, None, 1), (2, 1, None, 2)]
    socp = [(p.tau, p.qp_lambda, p.epsilon, p.strength) for p in grid("convex_optimal", settings)]
    assert socp == [(0.5, None, 1, 1), (0.5, None, 3, 3)]
    names = {p.strength_name for m in ("qp_optimal", "convex_optimal") for p in grid(m, settings)}
    assert names == {"tau at lambda=0.5", "tau at lambda=1", "epsilon at tau=0.5"}


def test_fixed_directions_sweep_alpha_and_nothing_has_no_strength():
    settings = Settings(strengths=[0.5, 2])
    points = grid("caa_repe", settings)
    assert [(p.strength_name, p.strength) for p in points] == [("alpha", 0.5), ("alpha", 2)]
    assert {(p.tau, p.qp_lambda, p.epsilon) for p in points} == {(None, None, None)}
    nothing = grid("no_steering", settings)
    assert [p.strength for p in nothing] == [0.0]


def test_programs_are_made_from_their_points():
    settings = Settings(qp_tau=[1.5], qp_lambda=[0.3], socp_tau=[0.7], socp_epsilon=[4])
    (point,) = grid("qp_optimal", settings)
    qp = make_program(point.method, point.tau, point.qp_lambda, point.epsilon)
    assert (qp.name, qp.tau, qp.qp_lambda) == ("qp_optimal", 1.5, 0.3)
    (point,) = grid("convex_optimal", settings)
    socp = make_program(point.method, point.tau, point.qp_lambda, point.epsilon)
    assert (socp.name, socp.tau, socp.epsilon) == ("convex_optimal", 0.7, 4)
    assert [m for m in METHODS if is_program(m)][:2] == ["convex_optimal", "qp_optimal"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("caa_repe", 1.0, None, None),
        ("qp_optimal", 1.0, None, 3.0),
        ("convex_optimal", 1.0, 3.0, None),
        ("qp", 1.0, 1.0, 1.0),
    ],
)
def test_what_is_no_program_is_refused(arguments: tuple):
    with pytest.raises(ValueError, match="not a program, or its parameter is missing"):
        make_program(*arguments)


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf, "much", [1.0, 2.0]])
def test_parameters_out_of_range(bad: float):
    with pytest.raises(ValueError, match="qp_lambda"):
        make_program("qp_optimal", 1.0, bad, None)
    with pytest.raises(ValueError, match="epsilon"):
        make_program("convex_optimal", 1.0, None, bad)
    with pytest.raises(ValueError, match="tau"):
        make_program("qp_optimal", np.inf, 1.0, None)
