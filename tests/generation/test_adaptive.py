"""A new optimum at every token, compared with CVXPY token by token."""

import copy
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from steering_core.generation.adaptive import (
    AdaptiveSolver,
    AdaptiveSteering,
    steer_generation_adaptively,
)
from steering_core.generation.generate import (
    Sampling,
    continuations,
    continue_batch,
    end_tokens,
    generate,
)
from steering_core.generation.plan import AdaptivePlan, plan_for
from steering_core.generation.steering import steer_generation
from steering_core.generation.table import SCHEMA, generate_method, write_generations
from steering_core.methods.grid import GridPoint
from steering_core.methods.interventions import Interventions
from steering_core.methods.solutions import solve_programs
from steering_core.metrics.divergence import divergence
from steering_core.metrics.text_divergence import text_divergence
from steering_core.models.language_model import LanguageModel
from steering_core.models.residual_stream import edit_residual
from steering_core.models.site import Site
from steering_core.models.tokens import pad, tokenize
from steering_core.optimize.homotopy import DegeneratePathError, Homotopy
from steering_core.optimize.path import PathRangeError, SteeringPath
from steering_core.optimize.reference import solve_reference
from steering_core.probes.linear_probe import LinearProbe

SITES = [Site(2, "pre", True, True), Site(1, "post", False, True)]
GREEDY = Sampling(new_tokens=7, temperature=None)
NAMES = [f"e{i}" for i in range(5)]
D_MODEL, BIAS, TAU = 32, -0.3, 4.0
RNG = np.random.default_rng(0)
DECODER = RNG.standard_normal((40, D_MODEL))
DECODER /= np.linalg.norm(DECODER, axis=1, keepdims=True)
WEIGHT = 0.4 * RNG.standard_normal(D_MODEL)


@pytest.fixture(scope="module")
def prompts(tiny):
    rng = np.random.default_rng(3)
    texts = [" ".join(f"w{k}" for k in rng.integers(0, 60, n)) for n in (2, 7, 1, 4, 3)]
    return tokenize(tiny.tokenizer, texts, prepend_bos=True)


def plan(program, parameter, tau, site, n=5, path=None):
    """The same program for every text, or one per text."""
    path = path or SteeringPath.fit(DECODER, WEIGHT)
    solver = AdaptiveSolver(path, WEIGHT, BIAS, program, site, torch.device("cpu"))
    return AdaptivePlan(solver, np.broadcast_to(tau, n) * 1.0, np.broadcast_to(parameter, n) * 1.0)


def shortfalls(residual, site, tau):
    return tau - (site.view(residual.astype(np.float64)) @ WEIGHT + BIAS)


def slowly(lm, prompt, site, program, parameter, tau, positions, new_tokens, solve):
    """One row, no cache: a whole pass for every token, and a solve for every steered position.

    Returns the new tokens, the shortfalls met at steered positions and how many had no solution.
    """
    tokens, start = list(prompt), len(prompt) - 1
    first = start if positions == "last" else 1
    for _ in range(new_tokens):
        met = []

        def edit(residual):
            steered = residual.clone()
            for k in range(max(first, 1), residual.shape[1]):  # BOS is at 0
                r = float(shortfalls(residual[0, k].numpy(), site, tau))
                vector = solve(r, program, parameter)
                met.append((r, vector is None))  # noqa: B023 - called at once
                if vector is not None:
                    steered[0, k] += torch.tensor(vector).to(residual.dtype)
            return steered

        with edit_residual(lm, site, edit), torch.no_grad():
            logits = lm.model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -1]
        tokens.append(int(logits.argmax()))
        if tokens[-1] in end_tokens(lm):
            break
    return tokens[len(prompt) :], [r for r, _ in met], sum(failed for _, failed in met)


def by_cvxpy(r, program, parameter):
    if r <= 0:
        return np.zeros(D_MODEL)
    kind = {"lam" if program == "qp" else "epsilon": parameter}
    found = solve_reference(DECODER, WEIGHT, r, **kind)
    return None if found.status == "infeasible" else found.delta @ DECODER


@pytest.fixture(scope="module")
def long_path():
    return SteeringPath.fit(DECODER, WEIGHT).extend(np.inf)


def by_path(long_path):
    def solve(r, program, parameter):
        found = getattr(long_path, program)(r, parameter)
        return found.vector[0] if found.solved[0] else None

    return solve


@pytest.mark.parametrize("site", SITES, ids=lambda s: s.hook_name)
@pytest.mark.parametrize(("program", "parameter"), [("qp", 0.7), ("socp", 9.0)])
def test_vectors_are_those_of_cvxpy_at_every_token(tiny, prompts, site, program, parameter):
    """What the hook adds while generating, against a cold conic solve at each position."""
    steering = plan(program, parameter, TAU, site)
    batch = pad(prompts, tiny.tokenizer, side="left", prepend_bos=True)
    before, after = [], []
    with ExitStack() as stack:
        # Hooks run in the order in which they were registered.
        for hook in (before, None, after):
            if hook is None:
                added = AdaptiveSteering(steering.solver, steering.tau, steering.parameter)
                stack.enter_context(steer_generation_adaptively(tiny, site, added, batch))
            else:
                stack.enter_context(edit_residual(tiny, site, recorder(hook)))
        continue_batch(tiny, batch, 6, [])
    assert len(before) == 6
    checked = {"optimal": 0, "satisfied": 0, "infeasible": 0}
    failed = np.zeros(len(NAMES), dtype=int)
    for h, steered in zip(before, after, strict=True):
        added = (steered - h)[:, -1].numpy()
        assert torch.equal(h[:, :-1], steered[:, :-1])
        for i in range(len(NAMES)):
            r = float(shortfalls(h[i, -1].numpy(), site, TAU))
            want = by_cvxpy(r, program, parameter)
            if want is None:
                checked["infeasible"] += 1
                failed[i] += 1
                want = np.zeros(D_MODEL)
            else:
                checked["optimal" if r > 0 else "satisfied"] += 1
            np.testing.assert_allclose(added[i], want, atol=2e-3)
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


def test_two_sites_at_once(tiny, prompts):
    """An adaptive program beside a fixed vector at a later layer."""
    batch = pad(prompts, tiny.tokenizer, side="left", prepend_bos=True)
    spec, later = plan("qp", 0.7, TAU, SITES[1]), Site(3, "pre", False, True)
    vector = np.random.default_rng(1).normal(size=D_MODEL)

    def run(adaptive, fixed):
        with ExitStack() as stack:
            if adaptive:
                added = AdaptiveSteering(spec.solver, spec.tau, spec.parameter)
                stack.enter_context(steer_generation_adaptively(tiny, SITES[1], added, batch))
            if fixed:
                vectors = torch.tensor(vector).expand(len(prompts), -1)
                stack.enter_context(steer_generation(tiny, later, vectors, batch))
            return continue_batch(tiny, batch, 6, [])

    both = run(True, True)
    assert both != run(True, False) and both != run(False, True)
    alone = generate(
        tiny, prompts, NAMES, Sampling(6, None), site=later, vectors=np.tile(vector, (5, 1))
    )
    assert run(False, True) == alone


# ------------------------------------------------------------------------- tables and metrics


@pytest.fixture(scope="module")
def interventions(tmp_path_factory):
    residuals = np.outer([5.0, -1.0, -2.0, -1e4, -3.0], WEIGHT / (WEIGHT @ WEIGHT))
    path = SteeringPath.fit(DECODER, WEIGHT)
    probe = LinearProbe(WEIGHT, BIAS, (0, 1), 1.0, 1.0, (1.0,), 0.0, False, 10)
    points = [
        GridPoint("socp_adaptive", i, "epsilon", epsilon, TAU, None, epsilon)
        for i, epsilon in enumerate((5.0, 9.0))
    ]
    rows = solve_programs(points, NAMES, residuals, probe, path)
    return Interventions(rows, tmp_path_factory.mktemp("d") / "unused", path)


@pytest.fixture(scope="module")
def table(tiny, interventions):
    prompts = pd.DataFrame(
        {"example_id": NAMES, "text": ["w1 w2", "w3", "w4 w5 w6", "w7 w8", "w9"]}
    )
    solver = plan("socp", 1.0, 1.0, SITES[1]).solver
    return generate_method(
        tiny, prompts, interventions, SITES[1], GREEDY,
        positions="last", max_tokens=20, batch_size=2, solver=solver,
    )  # fmt: skip


def test_table_counts_positions_without_a_solution(tiny, interventions, table, tmp_path):
    none = table["status"] == "infeasible"
    assert none.sum() == 2
    assert (
        table.loc[none, ["text", "unsolved_positions", "steered_positions"]].isna().all(axis=None)
    )
    for index, epsilon in enumerate((5.0, 9.0)):
        rows = table[(table["strength_index"] == index) & ~none]
        alone = continuations(
            tiny, rows["prompt_tokens"].tolist(), rows["example_id"].tolist(), GREEDY,
            site=SITES[1], adaptive=plan("socp", epsilon, TAU, SITES[1], len(rows)),
        )  # fmt: skip
        assert rows["new_tokens"].tolist() == alone.tokens
        assert rows["unsolved_positions"].tolist() == alone.unsolved.tolist()
        assert rows["steered_positions"].tolist() == [len(tokens) for tokens in alone.tokens]
    assert table["unsolved_positions"].sum() > 0
    write_generations(table, tmp_path / "g.parquet")
    back = pd.read_parquet(tmp_path / "g.parquet")
    assert list(back.columns) == SCHEMA.names
    assert back["unsolved_positions"].sum() == table["unsolved_positions"].sum()


def test_an_adaptive_method_needs_its_solver(tiny, interventions):
    with pytest.raises(ValueError, match="solver: socp_adaptive"):
        plan_for(None, interventions, interventions.at(0, NAMES))


@pytest.mark.parametrize("positions", ["last", "all"])
@pytest.mark.parametrize(("program", "parameter"), [("qp", 0.7), ("socp", 9.0)])
def test_divergence_applies_the_edit_of_generation(tiny, prompts, program, parameter, positions):
    """KL of the teacher-forced pass, against the distributions seen while generating."""
    site, kl = SITES[1], []
    made = continuations(
        tiny, prompts, NAMES, GREEDY, site=site, positions=positions,
        adaptive=plan(program, parameter, TAU, site),
    )  # fmt: skip
    for i, prompt in enumerate(prompts):
        total, tokens = 0.0, list(prompt)
        for new in made.tokens[i]:
            ids = torch.tensor([tokens])
            base = tiny.model(input_ids=ids, use_cache=False).logits[0, -1].double()
            steered = steered_logits(tiny, tokens, prompt, site, program, parameter, positions)
            assert int(steered.argmax()) == new
            p, q = torch.log_softmax(steered.double(), -1), torch.log_softmax(base, -1)
            total += float((p.exp() * (p - q)).sum())
            tokens.append(new)
        kl.append(total)
    got = divergence(
        tiny, prompts, made.tokens, site=site, vectors=None,
        adaptive=plan(program, parameter, TAU, site),
        steer_prompt=positions == "all", batch_tokens=30,
    )  # fmt: skip
    np.testing.assert_allclose(got.kl_sum, kl, rtol=2e-3, atol=1e-4)
    assert max(kl) > 0.1


@torch.no_grad()
def steered_logits(lm, tokens, prompt, site, program, parameter, positions):
    solve = by_path(SteeringPath.fit(DECODER, WEIGHT))
    first = max(len(prompt) - 1 if positions == "last" else 1, 1)

    def edit(residual):
        steered = residual.clone()
        for k in range(first, residual.shape[1]):
            r = float(shortfalls(residual[0, k].numpy(), site, TAU))
            vector = solve(r, program, parameter)
            if vector is not None:
                steered[0, k] += torch.tensor(vector).to(residual.dtype)
        return steered

    with edit_residual(lm, site, edit):
        return lm.model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -1]


def test_divergence_table_hands_the_counts_on(tiny, interventions, table):
    solver = plan("socp", 1.0, 1.0, SITES[1]).solver
    found = text_divergence(
        tiny, table, interventions, SITES[1], positions="last", batch_tokens=64, solver=solver
    )
    merged = found.merge(table, on=["strength_index", "example_id"], suffixes=("", "_made"))
    has = merged["text"].notna()
    for name in ("unsolved_positions", "steered_positions"):
        assert merged.loc[has, name].tolist() == merged.loc[has, f"{name}_made"].tolist()
    assert (merged.loc[has, "kl_sum"] > 0).any()
