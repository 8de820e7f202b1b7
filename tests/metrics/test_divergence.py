"""KL and perplexity against definitions written out in float64."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from steered_generation import divergence, generate_method, text_divergence
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
)

from steering_core.generation.sampling import Sampling
from steering_core.generation.table import SCHEMA
from steering_core.methods.programs import solve_programs
from steering_core.methods.solution_vectors import SolutionVectors
from steering_core.methods.solutions import GridPoint
from steering_core.metrics import divergence as module
from steering_core.metrics.divergence import token_divergence
from steering_core.models.head import final_hidden, logits_of, vocabulary_size
from steering_core.models.language_model import LanguageModel, ModelShape
from steering_core.models.residual_stream import edit_residual
from steering_core.models.site import Site
from steering_core.models.tokens import ROW_STEP
from steering_core.optimize.path import SteeringPath
from steering_core.probes.linear_probe import LinearProbe
from steering_core.storage.parquet import write_parquet

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


IDS = [f"p{i}" for i in range(4)]
QUESTIONS = ["w1 w2", "w3", "w4 w5 w6", "w7 w8"]


def probe(weight, bias=0.0):
    return LinearProbe(weight, bias, (0, 1), 1.0, 1.0, (1.0,), 0.0, False, 10)


@pytest.fixture(scope="module")
def solved(tmp_path_factory):
    rng = np.random.default_rng(0)
    decoder = rng.normal(size=(60, 32)).astype(np.float32)
    decoder /= np.linalg.norm(decoder, axis=1, keepdims=True)
    weight = rng.normal(size=32)
    path = SteeringPath.fit(decoder, weight)
    residuals = np.outer([5.0, -1.0, -1e4, -3.0], weight / (weight @ weight))
    points = [
        GridPoint("convex_optimal", i, "epsilon", epsilon, 0.5, None, epsilon)
        for i, epsilon in enumerate((3.0, 6.0))
    ]
    rows = solve_programs(points, IDS, residuals, probe(weight), path)
    return SolutionVectors(rows, tmp_path_factory.mktemp("d") / "none.safetensors", path)


@pytest.fixture(scope="module")
def generations(tiny, solved):
    return generate_method(
        tiny,
        pd.DataFrame({"example_id": IDS, "text": QUESTIONS}),
        solved,
        SITE,
        Sampling(new_tokens=6, temperature=1.0, top_p=0.9),
        positions="last",
        max_tokens=20,
        batch_size=3,
    )


@pytest.mark.parametrize("positions", ["last", "all"])
@pytest.mark.parametrize("stored", [False, True])
def test_divergence_of_texts(tiny, solved, generations, positions, stored, tmp_path):
    table = generations
    if stored:
        write_parquet(tmp_path / "g.parquet", generations, SCHEMA)
        table = pd.read_parquet(tmp_path / "g.parquet")
    got = text_divergence(tiny, table, solved, SITE, positions=positions, batch_tokens=50)
    assert got["example_id"].tolist() == IDS * 2
    infeasible = (generations["status"] == "infeasible").to_numpy()
    assert infeasible.tolist() == [False, False, True, False] * 2
    assert got.loc[infeasible, ["kl_sum", "base_nll_sum"]].isna().all(axis=None)
    assert (got.loc[infeasible, "n_tokens"] == 0).all()
    for i in np.flatnonzero(~infeasible):
        row = generations.iloc[i]
        vectors = solved.vectors(solved.at(row["strength_index"], [row["example_id"]]))
        alone = divergence(
            tiny,
            [row["prompt_tokens"]],
            [row["new_tokens"]],
            site=SITE,
            vectors=vectors,
            steer_prompt=positions == "all",
        )
        assert got["kl_sum"][i] == pytest.approx(alone.kl_sum[0], rel=1e-3, abs=1e-5)
        assert got["base_nll_sum"][i] == pytest.approx(alone.base_nll_sum[0], rel=1e-4)
        assert got["n_tokens"][i] == len(row["new_tokens"]) > 0
    # The prompt beyond the margin is not steered and the others are.
    assert abs(got["kl_sum"][0]) < 1e-5 < 1e-3 < got["kl_sum"][1]


def states(n, seed, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(n, 32, generator=generator)


def definition(lm, steered, base, target):
    s, b = (logits_of(lm, h).double().log_softmax(-1) for h in (steered, base))
    return (s.exp() * (s - b)).sum(-1), -b.gather(1, target[:, None])[:, 0]


@pytest.mark.parametrize("columns", [7, 16, 64, 1000])
@pytest.mark.parametrize("rows", [1, 8, 13, 4096])
def test_pieces_give_what_the_definition_says(tiny, monkeypatch, rows, columns):
    monkeypatch.setattr(module, "ROWS", rows)
    monkeypatch.setattr(module, "COLUMNS", columns)
    steered, base = states(21, 0), states(21, 1)
    target = torch.arange(21) * 3 % 64
    kl, surprise = token_divergence(tiny, steered, base, target)
    expected = definition(tiny, steered, base, target)
    torch.testing.assert_close(kl, expected[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(surprise, expected[1], rtol=1e-5, atol=1e-6)


@given(seed=st.integers(0, 1000), scale=st.sampled_from([0.0, 1e-3, 1.0, 100.0]))
def test_small_and_large_divergences(tiny, seed, scale):
    base = states(5, seed)
    steered = base + scale * states(5, seed + 1, 1.0)
    target = torch.arange(5)
    kl, _ = token_divergence(tiny, steered, base, target)
    expected, _ = definition(tiny, steered, base, target)
    # logits are float32, and their differences and exponentials are as far off as they are large
    largest = max(logits_of(tiny, hidden).abs().max().item() for hidden in (steered, base))
    slack = 4 * torch.finfo(torch.float32).eps * largest
    torch.testing.assert_close(kl, expected, rtol=1e-5, atol=slack)


def test_logits_are_computed_only_piece_by_piece(tiny, monkeypatch):
    monkeypatch.setattr(module, "ROWS", 8)
    monkeypatch.setattr(module, "COLUMNS", 10)
    shapes, own = [], module.logits_of
    monkeypatch.setattr(module, "logits_of", lambda *a: shapes.append(own(*a).shape) or own(*a))
    token_divergence(tiny, states(20, 0), states(20, 1), torch.zeros(20, dtype=torch.long))
    assert max(rows for rows, _ in shapes) == 8 and max(n for _, n in shapes) == 10
    assert all(rows % ROW_STEP == 0 for rows, _ in shapes)
    # every logit of both models once, of 24 rows with those that fill up
    assert sum(rows * n for rows, n in shapes) == 2 * 24 * vocabulary_size(tiny)


def test_rows_have_the_same_digits_in_any_company(tiny):
    steered, base, target = states(40, 2), states(40, 3), torch.arange(40)
    whole = token_divergence(tiny, steered, base, target)
    some = token_divergence(tiny, steered[5:14], base[5:14], target[5:14])
    for all_rows, few in zip(whole, some, strict=True):
        np.testing.assert_allclose(few, all_rows[5:14], rtol=1e-6, atol=1e-7)


def test_nothing_is_compared_with_nothing(tiny):
    kl, surprise = token_divergence(tiny, None, states(3, 0), torch.tensor([1, 2, 3]))
    assert kl.tolist() == [0.0] * 3 and (surprise > 0).all()
    empty = token_divergence(tiny, None, states(0, 0), torch.zeros(0, dtype=torch.long))
    assert [len(part) for part in empty] == [0, 0]
