"""A gated plan acts at the positions where its gate is open, and they are counted."""

import numpy as np
import pytest
import torch
from adaptive_world import D_MODEL, GREEDY, NAMES, SITES, WEIGHT, few_prompts, plan

from steering_core.generation.decode import continuations
from steering_core.generation.gate import GatedPlan
from steering_core.generation.intervention import Intervention, RowVectors, steer
from steering_core.methods.gates import Gate
from steering_core.models.residual_stream import read_residuals
from steering_core.models.tokens import pad

VECTORS = 3.0 * np.random.default_rng(1).standard_normal((5, D_MODEL))
GATE = Gate(WEIGHT, 0.05)


def gated(site, inner=None, gate=GATE):
    return Intervention({site: GatedPlan(inner or RowVectors(VECTORS), gate, site, 5)}, "all")


def counts(lm, intervention):
    made = continuations(
        lm,
        few_prompts(lm.tokenizer),
        NAMES,
        GREEDY,
        prepend_bos=True,
        intervention=intervention,
        batch_rows=3,
    )
    return made


@pytest.mark.parametrize("site", SITES)
def test_it_acts_where_the_residual_is_in_the_half_space(tiny, site):
    batch = pad([[1, 5, 6, 7], [1, 8, 9], *[[1, 3, 4]] * 3], tiny.tokenizer, side="right",
                prepend_bos=True)  # fmt: skip
    where = batch.mask & ~batch.bos
    base = read_residuals(tiny, [site], batch.ids, batch.mask)[site.hook_name]
    with steer(tiny, gated(site), where):
        steered = read_residuals(tiny, [site], batch.ids, batch.mask)[site.hook_name]
    raw = base[..., :].double().numpy()
    if site.centred:  # what the SAE and a probe see
        raw = raw - raw.mean(axis=-1, keepdims=True)
    opened = torch.tensor(raw @ WEIGHT + 0.05 > 0) & where
    assert opened.any() and (where & ~opened).any()
    expected = base + opened[..., None] * torch.tensor(VECTORS).float()[:, None]
    torch.testing.assert_close(steered, expected)


@pytest.mark.parametrize("site", SITES)
def test_an_open_gate_changes_nothing_and_a_shut_one_steers_nothing(tiny, site):
    nowhere, everywhere = Gate(0 * WEIGHT, -1.0), Gate(0 * WEIGHT, 1.0)
    plain = counts(tiny, Intervention({site: RowVectors(VECTORS)}, "all"))
    opened = counts(tiny, gated(site, gate=everywhere))
    assert opened.tokens == plain.tokens
    assert opened.added.tolist() == opened.steered.tolist() == plain.added.tolist()
    shut = counts(tiny, gated(site, gate=nowhere))
    assert shut.tokens == counts(tiny, None).tokens and not shut.added.any()
    assert shut.steered.all() and not shut.unsolved.any()


def test_between_the_two_some_positions_are_steered_in_any_batch(tiny):
    found = counts(tiny, gated(SITES[1]))
    assert (found.added <= found.steered).all()
    assert 0 < found.added.sum() < found.steered.sum()
    alone = continuations(
        tiny,
        few_prompts(tiny.tokenizer),
        NAMES,
        GREEDY,
        prepend_bos=True,
        intervention=gated(SITES[1]),
        batch_rows=1,
    )
    assert alone.tokens == found.tokens and alone.added.tolist() == found.added.tolist()


@pytest.mark.parametrize("program", [("qp", 1.0), ("socp", 2.0)])
def test_a_program_is_gated_by_its_own_margin(tiny, program):
    site = SITES[1]
    own = counts(tiny, Intervention({site: plan(*program, 0.5, site)}, "all"))
    assert 0 < own.added.sum() and (own.added + own.unsolved <= own.steered).all()
    both = gated(site, plan(*program, 0.5, site))
    assert both.is_adaptive and both.is_gated and both.norms(5) is None
    found = counts(tiny, both)
    assert (found.added + found.unsolved <= found.steered).all()
    assert found.added.sum() < found.steered.sum()
