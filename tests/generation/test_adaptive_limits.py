"""Paths too short or not to be trusted: what is not certified is left alone and counted."""

from dataclasses import replace

import numpy as np
import pytest
from adaptive_world import (
    DECODER,
    GREEDY,
    NAMES,
    SITES,
    TAU,
    WEIGHT,
    by_path,
    few_prompts,
    plan,
    slowly,
)
from steered_generation import continuations, generate

from steering_core.optimize.homotopy import DegeneratePathError, Homotopy
from steering_core.optimize.path import PathRangeError, SteeringPath


@pytest.fixture(scope="module")
def prompts(tiny):
    return few_prompts(tiny.tokenizer)


@pytest.fixture(scope="module")
def long_path():
    return SteeringPath.fit(DECODER, WEIGHT).extend(np.inf)


@pytest.mark.parametrize(("program", "parameter"), [("qp", 3.0), ("socp", 9.0)])
def test_a_short_path_is_followed_on(tiny, prompts, long_path, program, parameter, monkeypatch):
    monkeypatch.setattr("steering_core.optimize.follow._BLOCK", 2)
    far = 6.0  # a margin that needs more of the path than its first step
    short = SteeringPath.fit(DECODER, WEIGHT).extend(1e-9)
    reach = short.knots.reach
    kwargs = {"site": SITES[1], "batch_size": 2}
    got, want = (
        continuations(
            tiny, prompts, NAMES, GREEDY, **kwargs,
            adaptive=plan(program, parameter, far, SITES[1], path=path),
        )
        for path in (short, long_path)
    )  # fmt: skip
    assert short.knots.reach > reach
    assert got.tokens == want.tokens
    np.testing.assert_array_equal(got.unsolved, want.unsolved)


def test_a_short_path_without_its_decoder_says_so(tiny, prompts, tmp_path, monkeypatch):
    monkeypatch.setattr("steering_core.optimize.follow._BLOCK", 2)
    SteeringPath.fit(DECODER, WEIGHT).extend(1e-9).save(tmp_path / "path")
    short = SteeringPath.load(tmp_path / "path")
    with pytest.raises(PathRangeError, match="load it with its decoder"):
        continuations(
            tiny, prompts, NAMES, GREEDY, site=SITES[1],
            adaptive=plan("qp", 3.0, 6.0, SITES[1], path=short),
        )  # fmt: skip


def test_positions_beyond_the_end_of_float64_are_left_alone_and_counted(
    tiny, prompts, long_path, monkeypatch
):
    monkeypatch.setattr("steering_core.optimize.follow._BLOCK", 2)
    step, far = Homotopy.step, 6.0

    def stuck(self):
        if len(self.active) == 3:
            raise DegeneratePathError("stuck")
        return step(self)

    monkeypatch.setattr(Homotopy, "step", stuck)
    spec = plan("qp", 3.0, far, SITES[1], path=SteeringPath.fit(DECODER, WEIGHT))
    got = continuations(tiny, prompts, NAMES, GREEDY, site=SITES[1], batch_size=2, adaptive=spec)
    end = spec.solver._path.knots.reach
    assert 0 < end < long_path.knots.reach

    def until_the_end(r, program, parameter):
        return by_path(long_path)(r, program, parameter) if r * parameter <= end else None

    for i, prompt in enumerate(prompts):
        tokens, _, failed = slowly(tiny, prompt, SITES[1], "qp", 3.0, far, "last", 7, until_the_end)
        assert got.tokens[i] == tokens
        assert got.unsolved[i] == failed
    assert got.unsolved.sum() > 0


def test_a_path_stuck_at_its_beginning_steers_nothing_and_ends_nothing(tiny, prompts, monkeypatch):
    def stuck(self):
        raise DegeneratePathError("stuck")

    monkeypatch.setattr(Homotopy, "step", stuck)
    kwargs = {"site": SITES[1], "batch_size": 2}
    far = plan("qp", 3.0, 60.0, SITES[1], path=SteeringPath.fit(DECODER, WEIGHT))
    got = continuations(tiny, prompts, NAMES, GREEDY, **kwargs, adaptive=far)
    plain = continuations(tiny, prompts, NAMES, GREEDY, **kwargs)
    assert got.tokens == plain.tokens
    assert (got.unsolved > 0).all()


def test_positions_whose_solution_is_not_certified_are_left_alone_and_counted(tiny, prompts):
    path = SteeringPath.fit(DECODER, WEIGHT).extend(np.inf)
    wrong = replace(path.knots, violation=np.ones_like(path.knots.violation))
    kwargs = {"site": SITES[1], "batch_size": 2}
    got, well = (
        continuations(
            tiny, prompts, NAMES, GREEDY, **kwargs,
            adaptive=plan("qp", 0.7, TAU, SITES[1], path=SteeringPath(knots, 40, WEIGHT)),
        )
        for knots in (wrong, path.knots)
    )  # fmt: skip
    assert got.unsolved.sum() > 0 == well.unsolved.sum()
    assert got.tokens == generate(tiny, prompts, NAMES, GREEDY, site=SITES[1])
