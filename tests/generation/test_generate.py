"""Batched generation with cache equals one row at a time without."""

import numpy as np
import pytest
import torch
from steered_generation import generate

from steering_core.generation.decode import end_tokens
from steering_core.generation.sampling import Sampling, draws
from steering_core.models.residual_stream import edit_residual
from steering_core.models.site import Site
from steering_core.models.tokens import padded_width, tokenize

SITES = [Site(2, "pre", False, True), Site(1, "post", False, True)]
GREEDY = Sampling(new_tokens=9, temperature=None)
SAMPLED = Sampling(new_tokens=9, temperature=1.3, top_p=0.8, seed=3)


def slowly(lm, prompt, site, vector, sampling, positions="last", uniforms=None):
    """One row, no cache, no padding: a whole forward pass for every token, steered by hand."""
    tokens, start = list(prompt), len(prompt) - 1
    for step in range(sampling.new_tokens):

        def edit(residual):
            steered = residual.clone()
            first = start if positions == "last" else 1  # BOS is at 0
            steered[0, first:] += torch.tensor(vector).to(residual.dtype)
            return steered

        with edit_residual(lm, site, edit), torch.no_grad():
            logits = (
                lm.model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -1].float()
            )
        if sampling.temperature is None:
            new = int(logits.argmax())
        else:
            new = drawn(logits, sampling, float(uniforms[step]))
        tokens.append(new)
        if new in end_tokens(lm):
            break
    return tokens[len(prompt) :]


def drawn(logits, sampling, uniform):
    """The token a uniform number picks from the nucleus, written out."""
    probabilities = np.exp(logits.numpy().astype(np.float64) / sampling.temperature)
    probabilities /= probabilities.sum()
    order = np.argsort(-probabilities, kind="stable")
    kept, mass = [], 0.0
    for token in order:
        if mass >= sampling.top_p:
            break
        kept.append(token)
        mass += probabilities[token]
    below = 0.0
    for token in kept:
        below += probabilities[token]
        if uniform * mass < below:
            return int(token)
    raise AssertionError


NAMES = [f"e{i}" for i in range(6)]


@pytest.mark.parametrize("site", SITES, ids=lambda s: s.hook_name)
@pytest.mark.parametrize("positions", ["last", "all"])
@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_batched_equals_one_by_one_without_cache(tiny, prompts, vectors, site, positions, sampling):
    uniforms = draws(NAMES, sampling.new_tokens, sampling.seed)
    got = generate(
        tiny,
        prompts,
        NAMES,
        sampling,
        site=site,
        vectors=vectors,
        positions=positions,
        batch_size=4,
    )
    expected = [
        slowly(tiny, prompt, site, vector, sampling, positions, u)
        for prompt, vector, u in zip(prompts, vectors, uniforms, strict=True)
    ]
    assert got == expected
    base = generate(tiny, prompts, NAMES, sampling, site=site)
    assert sum(a != b for a, b in zip(got, base, strict=True)) >= 4


def test_gpt2_batched_equals_one_by_one(gpt2):
    """Absolute positions, and pad = end = BOS."""
    site = Site(7, "pre", True, True)
    texts = [
        "a gripping film",
        "the plot is",
        "dull , dull and",
        "it never quite comes to life but",
    ]
    prompts = tokenize(gpt2.tokenizer, texts, prepend_bos=True)
    vectors = np.random.default_rng(0).normal(size=(4, 96)) * 2
    got = generate(gpt2, prompts, NAMES[:4], GREEDY, site=site, vectors=vectors, batch_size=4)
    assert got == [slowly(gpt2, p, site, v, GREEDY) for p, v in zip(prompts, vectors, strict=True)]
    base = generate(gpt2, prompts, NAMES[:4], GREEDY, site=site)
    assert base == [slowly(gpt2, p, site, np.zeros(96), GREEDY) for p in prompts]
    assert got != base


def test_zero_vectors_are_no_steering(tiny, prompts):
    zero = np.zeros((6, 32))
    for sampling in (GREEDY, SAMPLED):
        base = generate(tiny, prompts, NAMES, sampling, site=SITES[0])
        assert generate(tiny, prompts, NAMES, sampling, site=SITES[0], vectors=zero) == base


@pytest.mark.parametrize("batch_size", [1, 2, 5, 50])
def test_samples_do_not_depend_on_the_batch(tiny, prompts, vectors, batch_size):
    kwargs = {"site": SITES[0], "vectors": vectors}
    whole = generate(tiny, prompts, NAMES, SAMPLED, **kwargs, batch_size=6)
    assert generate(tiny, prompts, NAMES, SAMPLED, **kwargs, batch_size=batch_size) == whole


def test_samples_do_not_depend_on_the_order_or_the_company(tiny, prompts, vectors):
    whole = generate(tiny, prompts, NAMES, SAMPLED, site=SITES[0], vectors=vectors)
    order = [4, 1, 5, 0]
    some = generate(
        tiny,
        [prompts[i] for i in order],
        [NAMES[i] for i in order],
        SAMPLED,
        site=SITES[0],
        vectors=vectors[order],
    )
    assert some == [whole[i] for i in order]


def test_seed_and_name_decide_the_draws(tiny, prompts):
    def sample(seed, names=NAMES):
        sampling = Sampling(new_tokens=9, temperature=1.3, top_p=1.0, seed=seed)
        return generate(tiny, [prompts[2]] * 6, names, sampling, site=SITES[0])

    first = sample(0)
    torch.manual_seed(99)  # the global generator is not used
    assert sample(0) == first
    assert sample(1) != first
    assert len({tuple(row) for row in first}) > 3
    assert len({tuple(row) for row in sample(0, ["same"] * 6)}) == 1


@pytest.mark.parametrize("positions", ["last", "all"])
def test_bos_and_padding_are_never_steered(tiny, prompts, vectors, positions):
    seen, after = [], []

    def before(module, args, kwargs):
        residual = (args or (kwargs["hidden_states"],))[0]
        if len(residual) > 1:  # a single row measures the cache
            seen.append(residual.clone())

    # Runs before ours is registered.
    handle = tiny.blocks[2].register_forward_pre_hook(before, with_kwargs=True)
    try:
        kwargs = {"site": SITES[0], "positions": positions, "batch_size": 6}
        with _record_after_edit(tiny, after):
            generate(tiny, prompts, NAMES, GREEDY, **kwargs, vectors=vectors)
    finally:
        handle.remove()
    width = padded_width(max(map(len, prompts)), tiny.shape.context)
    change = (after[0] - seen[0]).abs().amax(dim=-1) > 0
    for row, i in enumerate(range(6)):
        padding = width - len(prompts[i])
        expected = [False] * width
        first = width - 1 if positions == "last" else padding + 1
        expected[first:] = [True] * (width - first)
        assert change[row].tolist() == expected
    for before_step, after_step in zip(seen[1:], after[1:], strict=True):
        expected = torch.tensor(vectors, dtype=torch.float32)
        found = (after_step - before_step)[:6, 0]  # the batch is filled up to ROW_STEP
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


class _record_after_edit:  # noqa: N801 - used like a function
    """Record what the norm inside block 2 receives: the stream after the edit."""

    def __init__(self, lm, out):
        self.lm, self.out = lm, out

    def __enter__(self):
        self.handle = self.lm.blocks[2].input_layernorm.register_forward_pre_hook(
            lambda module, args: self.out.append(args[0].clone()) if len(args[0]) > 1 else None
        )

    def __exit__(self, *exc):
        self.handle.remove()


def test_a_prompt_of_bos_alone_is_not_steered_at_bos(tiny, vectors):
    """The pass over a prompt of one token looks like a decoding step."""
    got = generate(tiny, [[1]], ["a"], GREEDY, site=SITES[0], vectors=vectors[:1] * 5)
    base = generate(tiny, [[1]], ["a"], GREEDY, site=SITES[0])
    assert got[0][0] == base[0][0]  # the first token is read at BOS
    assert got != base
