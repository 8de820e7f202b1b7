"""KL and perplexity against definitions written out in float64."""

import copy

import numpy as np
import pytest
import torch
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
)

from steering_core.metrics.divergence import divergence
from steering_core.models.head import final_hidden, logits_of
from steering_core.models.language_model import LanguageModel, ModelShape
from steering_core.models.residual_stream import edit_residual
from steering_core.models.site import Site

SITE = Site(2, "pre", False, True)
POST = Site(1, "post", False, True)
RNG = np.random.default_rng(0)
PROMPTS = [[1, *RNG.integers(4, 64, n).tolist()] for n in (2, 7, 4, 1)]
TEXTS = [RNG.integers(4, 64, n).tolist() for n in (5, 3, 9, 1)]
VECTORS = RNG.normal(size=(4, 32)) * 2


def small(config_class, model_class, **settings):
    """A random two-layer model of width 32 with the vocabulary of the tiny tokenizer."""
    config = config_class(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=64,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        **settings,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = model_class(config).eval().requires_grad_(False)
        for parameter in model.parameters():
            if parameter.ndim == 2:
                torch.nn.init.normal_(parameter, std=0.5)
    return model, ModelShape(3, 32, 64, "model.layers", model_class.__name__)


@pytest.fixture(scope="module")
def gemma(tiny):
    """Soft caps low enough to bend the logits, in attention and at the end."""
    model, shape = small(
        Gemma2Config,
        Gemma2ForCausalLM,
        head_dim=8,
        query_pre_attn_scalar=8,
        final_logit_softcapping=2.0,
        attn_logit_softcapping=3.0,
        sliding_window=4,
    )
    return LanguageModel(model, tiny.tokenizer, shape)


@pytest.fixture(scope="module")
def granite(tiny):
    """Logits are divided by a factor."""
    model, shape = small(GraniteConfig, GraniteForCausalLM, logits_scaling=0.7)
    return LanguageModel(model, tiny.tokenizer, shape)


@pytest.fixture(scope="module")
def cohere(tiny):
    """Logits are multiplied by a factor."""
    model, shape = small(CohereConfig, CohereForCausalLM, logit_scale=0.9)
    return LanguageModel(model, tiny.tokenizer, shape)


@pytest.fixture(params=["tiny", "gemma", "granite", "cohere"])
def lm(request):
    return request.getfixturevalue(request.param)


def by_definition(lm, prompt, text, site, vector, steer_prompt=False):
    """(Σ KL, Σ NLL) of one unpadded text in float64, from the model's own logits."""
    double = LanguageModel(copy.deepcopy(lm.model).double(), lm.tokenizer, lm.shape)
    ids = torch.tensor([[*prompt, *text]])
    first = 1 if steer_prompt else len(prompt) - 1

    def edit(residual):
        steered = residual.clone()
        steered[0, first:] += torch.tensor(vector)
        return steered

    with torch.no_grad():
        base = double.model(input_ids=ids).logits[0].log_softmax(dim=-1)
        with edit_residual(double, site, edit):
            steered = double.model(input_ids=ids).logits[0].log_softmax(dim=-1)
    predicting = range(len(prompt) - 1, ids.shape[1] - 1)
    kl = sum(float((steered[t].exp() * (steered[t] - base[t])).sum()) for t in predicting)
    nll = sum(-float(base[t, ids[0, t + 1]]) for t in predicting)
    return kl, nll


@pytest.mark.parametrize("site", [SITE, POST], ids=lambda s: s.hook_name)
@pytest.mark.parametrize("steer_prompt", [False, True])
def test_equals_the_definition(lm, site, steer_prompt):
    got = divergence(
        lm, PROMPTS, TEXTS, site=site, vectors=VECTORS, steer_prompt=steer_prompt, batch_tokens=40
    )
    for i, (prompt, text) in enumerate(zip(PROMPTS, TEXTS, strict=True)):
        kl, nll = by_definition(lm, prompt, text, site, VECTORS[i], steer_prompt)
        assert got.kl_sum[i] == pytest.approx(kl, rel=2e-3)
        assert got.base_nll_sum[i] == pytest.approx(nll, rel=1e-4)
        assert kl > 0.005  # the comparison is of something
    assert got.n_tokens.tolist() == [5, 3, 9, 1]


def test_gpt2_equals_the_definition(gpt2):
    site = Site(7, "pre", True, True)
    end = gpt2.tokenizer.bos_token_id
    prompts = [[end, 30, 41, 52], [end, 77]]
    texts = [[90, 101, end], [200, 300, 400, 500, 600]]  # the first text ends
    vectors = np.random.default_rng(0).normal(size=(2, 96))
    got = divergence(gpt2, prompts, texts, site=site, vectors=vectors)
    for i in range(2):
        kl, nll = by_definition(gpt2, prompts[i], texts[i], site, vectors[i])
        assert got.kl_sum[i] == pytest.approx(kl, rel=2e-3)
        assert got.base_nll_sum[i] == pytest.approx(nll, rel=1e-4)


def test_nll_is_the_loss_of_the_model(lm):
    got = divergence(lm, PROMPTS, TEXTS, site=SITE, vectors=None)
    for i, (prompt, text) in enumerate(zip(PROMPTS, TEXTS, strict=True)):
        ids = torch.tensor([[*prompt, *text]])
        labels = torch.tensor([[-100] * len(prompt) + text])
        with torch.no_grad():
            loss = float(lm.model(input_ids=ids, labels=labels).loss)
        assert got.base_nll_sum[i] == pytest.approx(loss * len(text), rel=1e-4)


def test_zero_without_vectors_and_nearly_with_zero_vectors(lm):
    assert divergence(lm, PROMPTS, TEXTS, site=SITE, vectors=None).kl_sum.tolist() == [0.0] * 4
    zero = divergence(lm, PROMPTS, TEXTS, site=SITE, vectors=np.zeros((4, 32)))
    np.testing.assert_allclose(zero.kl_sum, 0, atol=1e-5)


@pytest.mark.parametrize("batch_tokens", [1, 25, 1000])
def test_padding_and_company_have_no_influence(lm, batch_tokens):
    whole = divergence(lm, PROMPTS, TEXTS, site=SITE, vectors=VECTORS, batch_tokens=batch_tokens)
    order = [2, 0]
    some = divergence(
        lm,
        [PROMPTS[i] for i in order],
        [TEXTS[i] for i in order],
        site=SITE,
        vectors=VECTORS[order],
    )
    np.testing.assert_allclose(whole.kl_sum[order], some.kl_sum, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(whole.base_nll_sum[order], some.base_nll_sum, rtol=1e-4)


def test_soft_capped_logits_are_the_models_own(gemma):
    ids = torch.tensor([PROMPTS[1]])
    mask = torch.ones_like(ids, dtype=torch.bool)
    with torch.no_grad():
        own = gemma.model(input_ids=ids).logits
        ours = logits_of(gemma, final_hidden(gemma, ids, mask))
        bare = gemma.model.lm_head(final_hidden(gemma, ids, mask))
    torch.testing.assert_close(ours, own)
    assert float((bare - own).abs().max()) > 1  # the cap matters here


def test_longer_texts_have_the_sum_of_their_tokens(tiny):
    """Per-token terms add up: a prefix has the terms of its own tokens."""
    text = TEXTS[2]
    sums = [
        divergence(tiny, [PROMPTS[2]], [text[:k]], site=SITE, vectors=VECTORS[2:3])
        for k in range(1, len(text) + 1)
    ]
    terms = np.diff([0.0, *(s.base_nll_sum[0] for s in sums)])
    with torch.no_grad():
        log = tiny.model(input_ids=torch.tensor([[*PROMPTS[2], *text]])).logits[0].log_softmax(-1)
    start = len(PROMPTS[2]) - 1
    expected = [-float(log[start + k, token]) for k, token in enumerate(text)]
    np.testing.assert_allclose(terms, expected, rtol=1e-3, atol=1e-4)
    assert (np.diff([0.0, *(s.kl_sum[0] for s in sums)]) > 0).all()


def test_empty_texts(tiny):
    got = divergence(tiny, PROMPTS[:2], [[], [5, 6]], site=SITE, vectors=VECTORS[:2])
    assert got.kl_sum[0] == got.base_nll_sum[0] == got.n_tokens[0] == 0
    assert got.kl_sum[1] > 0
    nothing = divergence(tiny, PROMPTS[:1], [[]], site=SITE, vectors=VECTORS[:1])
    assert nothing.kl_sum.tolist() == [0.0]
    assert divergence(tiny, [], [], site=SITE, vectors=None).kl_sum.shape == (0,)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_passes_the_check_of_the_head(lm, dtype):
    half = LanguageModel(copy.deepcopy(lm.model).to(dtype), lm.tokenizer, lm.shape)
    got = divergence(half, PROMPTS, TEXTS, site=SITE, vectors=VECTORS)
    full = divergence(lm, PROMPTS, TEXTS, site=SITE, vectors=VECTORS)
    assert np.isfinite(got.kl_sum).all()
    np.testing.assert_allclose(got.base_nll_sum, full.base_nll_sum, rtol=0.1)
