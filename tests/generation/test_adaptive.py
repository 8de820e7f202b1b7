"""A new optimum at every token, compared with CVXPY token by token."""

import copy
from contextlib import ExitStack

import numpy as np
import pytest
import torch
from adaptive_world import (
    D_MODEL,
    DECODER,
    GREEDY,
    NAMES,
    SITES,
    TAU,
    WEIGHT,
    by_cvxpy,
    by_path,
    few_prompts,
    plan,
    shortfalls,
    slowly,
)
from steered_generation import continuations, generate

from steering_core.generation.decode import continue_batch
from steering_core.generation.intervention import (
    Intervention,
    RowVectors,
    steer,
    steered_positions,
)
from steering_core.generation.sampling import Sampling
from steering_core.models.language_model import LanguageModel
from steering_core.models.residual_stream import edit_residual
from steering_core.models.site import Site
from steering_core.models.tokens import pad
from steering_core.optimize.path import SteeringPath


@pytest.fixture(scope="module")
def prompts(tiny):
    return few_prompts(tiny.tokenizer)


@pytest.fixture(scope="module")
def long_path():
    return SteeringPath.fit(DECODER, WEIGHT).extend(np.inf)


@pytest.mark.parametrize("site", SITES, ids=lambda s: s.hook_name)
@pytest.mark.parametrize("positions", ["last", "all"])
@pytest.mark.parametrize(("program", "parameter"), [("qp", 0.7), ("socp", 9.0)])
def test_vectors_are_those_of_cvxpy_at_every_token(
    tiny, prompts, site, positions, program, parameter
):
    """What the hook adds while generating, against a cold conic solve at each position."""
    steering = plan(program, parameter, TAU, site)
    batch = pad(prompts, tiny.tokenizer, side="left", prepend_bos=True)
    before, after = [], []
    with ExitStack() as stack:
        # Hooks run in the order in which they were registered.
        for hook in (before, None, after):
            if hook is None:
                intervention = Intervention({site: steering}, positions)
                where = steered_positions(batch, positions)
                stack.enter_context(steer(tiny, intervention, where))
            else:
                stack.enter_context(edit_residual(tiny, site, recorder(hook)))
        continue_batch(tiny, batch, 6, [])
    assert len(before) == 6
    checked = {"optimal": 0, "satisfied": 0, "infeasible": 0}
    where = [steered_positions(batch, positions)]
    where += [torch.ones((len(NAMES), 1), dtype=torch.bool)] * 5
    for h, steered, there in zip(before, after, where, strict=True):
        assert h.shape[:2] == there.shape and torch.equal(h[~there], steered[~there])
        for residual, got in zip(h[there].numpy(), steered[there].numpy(), strict=True):
            r = float(shortfalls(residual, site, TAU))
            want = by_cvxpy(r, program, parameter)
            if want is None:
                checked["infeasible"] += 1
                want = np.zeros(D_MODEL)
            else:
                checked["optimal" if r > 0 else "satisfied"] += 1
            np.testing.assert_allclose(got - residual, want, atol=2e-3)
    of_prompts = sum(map(len, prompts)) - len(prompts) if positions == "all" else len(prompts)
    assert sum(checked.values()) == of_prompts + 5 * len(NAMES)
    assert checked["optimal"] >= 3
    assert (checked["infeasible"] > 0) == (program == "socp")


def recorder(seen):
    def edit(residual):
        seen.append(residual.clone())
        return residual

    return edit


@pytest.mark.parametrize("site", SITES, ids=lambda s: s.hook_name)
@pytest.mark.parametrize("positions", ["last", "all"])
@pytest.mark.parametrize(("program", "parameter"), [("qp", 0.7), ("socp", 9.0)])
def test_batched_equals_one_by_one_without_cache(
    tiny, prompts, long_path, site, positions, program, parameter
):
    got = continuations(
        tiny,
        prompts,
        NAMES,
        GREEDY,
        site=site,
        adaptive=plan(program, parameter, TAU, site),
        positions=positions,
        batch_size=3,
    )
    for i, prompt in enumerate(prompts):
        tokens, met, failed = slowly(
            tiny, prompt, site, program, parameter, TAU, positions, 7, by_path(long_path)
        )
        assert got.tokens[i] == tokens
        assert got.steered[i] == len(met)
        assert got.unsolved[i] == failed
    assert (got.unsolved.sum() > 0) == (program == "socp")
    base = generate(tiny, prompts, NAMES, GREEDY, site=site)
    assert got.tokens != base


def test_counts_do_not_depend_on_the_batch(tiny, prompts):
    """A row that has ended goes on in its batch; what happens to it there is not counted."""
    tiny = LanguageModel(copy.deepcopy(tiny.model), tiny.tokenizer, tiny.shape)
    tiny.model.generation_config.eos_token_id = list(range(2, 64, 6))
    results = [
        continuations(
            tiny,
            prompts,
            NAMES,
            Sampling(new_tokens=7, temperature=1.3, top_p=0.9),
            site=SITES[0],
            adaptive=plan("socp", 9.0, TAU, SITES[0]),
            batch_size=size,
        )
        for size in (1, 2, 5)
    ]
    assert len({len(tokens) for tokens in results[0].tokens}) > 1
    for other in results[1:]:
        assert other.tokens == results[0].tokens
        np.testing.assert_array_equal(other.unsolved, results[0].unsolved)
        np.testing.assert_array_equal(other.steered, results[0].steered)


@pytest.mark.parametrize(
    ("program", "values"), [("qp", [0.2, 1.0, 4.0]), ("socp", [2.0, 4.0, 9.0])]
)
def test_a_whole_grid_in_one_run_equals_its_strengths_apart(tiny, prompts, program, values):
    site, tau = SITES[1], np.repeat([0.5, TAU, 3.0], len(prompts))
    together = continuations(
        tiny,
        prompts * 3,
        NAMES * 3,
        GREEDY,
        site=site,
        adaptive=plan(program, np.repeat(values, len(prompts)), tau, site, 3 * len(prompts)),
    )
    for k, value in enumerate(values):
        alone = continuations(
            tiny, prompts, NAMES, GREEDY, site=site,
            adaptive=plan(program, value, [0.5, TAU, 3.0][k], site),
        )  # fmt: skip
        mine = slice(k * len(prompts), (k + 1) * len(prompts))
        assert together.tokens[mine] == alone.tokens
        np.testing.assert_array_equal(together.unsolved[mine], alone.unsolved)


def test_two_sites_at_once(tiny, prompts):
    """An adaptive program beside a fixed vector at a later layer."""
    batch = pad(prompts, tiny.tokenizer, side="left", prepend_bos=True)
    spec, later = plan("qp", 0.7, TAU, SITES[1]), Site(3, "pre", False, True)
    vector = np.random.default_rng(1).normal(size=D_MODEL)

    def run(adaptive, fixed):
        at = ({SITES[1]: spec} if adaptive else {}) | ({later: RowVectors(vector)} if fixed else {})
        with steer(tiny, Intervention(at), steered_positions(batch, "last")):
            return continue_batch(tiny, batch, 6, [])

    both = run(True, True)
    assert both != run(True, False) and both != run(False, True)
    alone = generate(
        tiny, prompts, NAMES, Sampling(6, None), site=later, vectors=np.tile(vector, (5, 1))
    )
    assert run(False, True) == alone
