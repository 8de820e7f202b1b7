"""What an intervention adds, and where; with a gate, only where that is open."""

import numpy as np
import pytest
import torch
from adaptive_world import D_MODEL, GREEDY, NAMES, SITES, WEIGHT, few_prompts, plan

from steering_core.config.model import Model, SAESource
from steering_core.errors import DataError, ModelError
from steering_core.generation.decode import continuations
from steering_core.generation.intervention import (
    GatedRows,
    Intervention,
    RowVectors,
    steer,
    steered_positions,
)
from steering_core.methods.gates import Gate
from steering_core.models.language_model import load_language_model
from steering_core.models.residual_stream import read_residuals
from steering_core.models.site import Site
from steering_core.models.tokens import pad

SITE = Site(1, "pre", False, True)


@pytest.fixture
def batch(tiny):
    return pad([[1, 5, 6, 7], [1, 8], [1]], tiny.tokenizer, side="left", prepend_bos=True)


def test_steered_positions(batch):
    assert steered_positions(batch, "last").long().tolist() == [
        [0, 0, 0, 1],
        [0, 0, 0, 1],
        [0, 0, 0, 0],  # BOS is the last token there
    ]
    assert steered_positions(batch, "all").long().tolist() == [
        [0, 1, 1, 1],
        [0, 0, 0, 1],
        [0, 0, 0, 0],
    ]


def test_without_bos_the_first_token_is_a_token_like_others(tiny):
    batch = pad([[5, 6], [7]], tiny.tokenizer, side="left", prepend_bos=False)
    assert steered_positions(batch, "all").long().tolist() == [[1, 1], [0, 1]]


def test_exact_positions_of_one_pass(tiny):
    batch = pad([[1, 5, 6, 7], [1, 8]], tiny.tokenizer, side="right", prepend_bos=True)
    where = torch.tensor([[False, True, False, True], [False, True, False, False]])
    vectors = np.random.default_rng(0).standard_normal((2, 32))
    base = read_residuals(tiny, [SITE], batch.ids, batch.mask)[SITE.hook_name]
    with steer(tiny, Intervention({SITE: RowVectors(vectors)}), where):
        steered = read_residuals(tiny, [SITE], batch.ids, batch.mask)[SITE.hook_name]
    expected = base + where[..., None] * torch.tensor(vectors).float()[:, None]
    torch.testing.assert_close(steered, expected)
    assert torch.equal(steered[~where], base[~where])


def test_places_inside_several_blocks_are_found_before_any_is_steered(tiny_model):
    source = SAESource(path="unused/layer_{layer}")
    fresh = load_language_model(Model(id=str(tiny_model), sae=source), "cpu")
    batch = pad([[1, 5, 6, 7], [1, 8]], fresh.tokenizer, side="right", prepend_bos=True)
    sites = [Site(layer, "attn_out", False, True) for layer in (0, 2)]
    at = {site: RowVectors(np.ones(32)) for site in sites}
    base = read_residuals(fresh, sites[:1], batch.ids, batch.mask)[sites[0].hook_name]
    fresh = load_language_model(Model(id=str(tiny_model), sae=source), "cpu")
    with steer(fresh, Intervention(at), batch.mask):
        steered = read_residuals(fresh, sites[:1], batch.ids, batch.mask)[sites[0].hook_name]
    torch.testing.assert_close(steered[batch.mask], base[batch.mask] + 1)


def test_generation_without_a_cache_is_refused(tiny, batch):
    """A later pass with the whole text would steer padding and BOS."""
    with (
        pytest.raises(ModelError, match="KV cache"),
        steer(
            tiny, Intervention({SITE: RowVectors(np.ones(32))}), steered_positions(batch, "last")
        ),
    ):
        tiny.model.generate(
            input_ids=batch.ids,
            attention_mask=batch.mask.long(),
            max_new_tokens=3,
            do_sample=False,
            use_cache=False,
            pad_token_id=0,
        )


LATER = Site(3, "post", False, True)


def test_one_vector_for_all_rows_is_the_same_vector_for_each(tiny, batch):
    vector = np.random.default_rng(1).standard_normal(32)
    where = steered_positions(batch, "all")

    def logits(vectors):
        with steer(tiny, Intervention({SITE: RowVectors(vectors)}), where):
            return tiny.model(input_ids=batch.ids, attention_mask=batch.mask.long()).logits

    one, each = logits(vector), logits(np.tile(vector, (3, 1)))
    assert torch.equal(one, each)
    assert not torch.equal(one, logits(np.zeros(32)))


def test_an_intervention_on_some_rows_keeps_their_vectors_and_its_sites():
    vectors = np.arange(96.0).reshape(3, 32)
    whole = Intervention({SITE: RowVectors(vectors), LATER: RowVectors(vectors[0])}, "all")
    some = whole.rows([2, 0])
    assert some.layers == [1, 3] and some.positions == "all" and not some.is_adaptive
    np.testing.assert_array_equal(some.at[SITE].vectors, vectors[[2, 0]])
    np.testing.assert_array_equal(some.at[LATER].vectors, vectors[0])
    squares = (vectors[[2, 0]] ** 2).sum(axis=1) + (vectors[0] ** 2).sum()
    np.testing.assert_allclose(some.norms(2), np.sqrt(squares))
    assert some.float32().at[SITE].vectors.dtype == np.float32


@pytest.mark.parametrize(
    ("vectors", "message"),
    [(np.full((3, 32), np.inf), "not finite"), (np.ones(31), "31 dimensions, the model 32")],
)
def test_vectors_that_cannot_be_added_are_refused(tiny, vectors, message):
    with pytest.raises(DataError, match=message):
        Intervention({SITE: RowVectors(vectors)}).check(tiny)


# -------------------------------------------------------------------------------------------- gates
VECTORS = 3.0 * np.random.default_rng(1).standard_normal((5, D_MODEL))
GATE = Gate(WEIGHT, 0.05)


def gated(site, inner=None, gate=GATE):
    return Intervention({site: GatedRows(inner or RowVectors(VECTORS), gate, site, 5)}, "all")


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
