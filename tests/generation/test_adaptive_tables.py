"""Adaptive programs in the table of texts and in the divergence of these."""

import numpy as np
import pandas as pd
import pytest
import torch
from adaptive_world import (
    BIAS,
    DECODER,
    GREEDY,
    NAMES,
    SITES,
    TAU,
    WEIGHT,
    by_path,
    few_prompts,
    plan,
    shortfalls,
)
from steered_generation import continuations, divergence, generate_method, text_divergence

from steering_core.generation.steered_method import SteeredMethod
from steering_core.generation.table import SCHEMA
from steering_core.methods.programs import solve_programs
from steering_core.methods.solution_vectors import SolutionVectors
from steering_core.methods.solutions import GridPoint
from steering_core.models.residual_stream import edit_residual
from steering_core.optimize.path import SteeringPath
from steering_core.probes.linear_probe import LinearProbe
from steering_core.storage.parquet import write_parquet


@pytest.fixture(scope="module")
def prompts(tiny):
    return few_prompts(tiny.tokenizer)


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
    return SolutionVectors(rows, tmp_path_factory.mktemp("d") / "unused", path)


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
    write_parquet(tmp_path / "g.parquet", table, SCHEMA)
    back = pd.read_parquet(tmp_path / "g.parquet")
    assert list(back.columns) == SCHEMA.names
    assert back["unsolved_positions"].sum() == table["unsolved_positions"].sum()


def test_an_adaptive_method_needs_its_solver(tiny, interventions):
    with pytest.raises(ValueError, match="solver: socp_adaptive"):
        SteeredMethod(interventions, SITES[1])


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
