"""Where generation ends, and what it refuses."""

import copy

import numpy as np
import pytest
import torch
from steered_generation import generate

from steering_core.config.model import Model, SAESource
from steering_core.errors import DataError
from steering_core.generation.decode import end_tokens
from steering_core.generation.sampling import Sampling
from steering_core.models.language_model import LanguageModel, load_language_model
from steering_core.models.site import Site

SITES = [Site(2, "pre", False, True), Site(1, "post", False, True)]
GREEDY = Sampling(new_tokens=9, temperature=None)
NAMES = [f"e{i}" for i in range(6)]


def test_text_stops_at_the_end_token(tiny, prompts):
    """A model that must say the end token at once, in half of the rows."""
    model = copy.deepcopy(tiny.model)
    with torch.no_grad():
        # The end token's logit is large wherever the stream points along the vector.
        model.lm_head.weight[2] = 50.0 * torch.ones(32)
    lm = LanguageModel(model, tiny.tokenizer, tiny.shape)
    vectors = np.zeros((6, 32))
    vectors[::2] = 100.0
    vectors[1::2] = -100.0
    got = generate(
        lm, prompts, NAMES, GREEDY, site=Site(3, "post", False, True), vectors=vectors, batch_size=6
    )
    for i, row in enumerate(got):
        if i % 2 == 0:
            assert row == [2]
        else:
            assert len(row) == 9 and 2 not in row


def test_several_end_tokens_of_the_model(tiny, prompts):
    model = copy.deepcopy(tiny.model)
    lm = LanguageModel(model, tiny.tokenizer, tiny.shape)
    free = generate(lm, prompts, NAMES, GREEDY, site=SITES[0])
    longest = max(free, key=len)
    stop = longest[3]
    model.generation_config.eos_token_id = [2, stop]
    assert end_tokens(lm) == [2, stop]
    for row, before in zip(generate(lm, prompts, NAMES, GREEDY, site=SITES[0]), free, strict=True):
        cut = next((i for i, t in enumerate(before) if t in (2, stop)), len(before))
        assert row == before[: cut + 1]


@pytest.fixture(scope="module")
def half(tiny_model):
    source = SAESource(path="{layer}")
    return load_language_model(Model(id=str(tiny_model), sae=source, dtype="bfloat16"), "cpu")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_vectors_in_full_precision_into_a_bfloat16_model(half, prompts, vectors, dtype):
    kwargs = {"site": SITES[0], "batch_size": 1}
    got = generate(half, prompts, NAMES, GREEDY, **kwargs, vectors=vectors.astype(dtype))
    assert got != generate(half, prompts, NAMES, GREEDY, **kwargs)


def test_context_overflow(tiny, prompts):
    room = tiny.shape.context - max(map(len, prompts))
    fits = Sampling(new_tokens=room, temperature=None)
    assert len(generate(tiny, prompts, NAMES, fits, site=SITES[0])) == 6
    with pytest.raises(DataError, match=r"need 65 positions, the model has 64"):
        generate(tiny, prompts, NAMES, Sampling(new_tokens=room + 1), site=SITES[0])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_vectors_that_are_not_finite(tiny, prompts, vectors, value):
    bad = vectors.copy()
    bad[3, 5] = value
    with pytest.raises(DataError, match="not finite"):
        generate(tiny, prompts, NAMES, GREEDY, site=SITES[0], vectors=bad)


def test_progress_counts_prompts(tiny, prompts):
    ticks = []
    several, names = prompts + prompts[:4], NAMES + NAMES[:4]
    generate(tiny, several, names, GREEDY, site=SITES[0], batch_size=4, tick=ticks.append)
    assert ticks == [8, 2]  # eight rows at least


def test_hooks_are_gone_after_generation_and_after_failure(tiny, prompts, vectors):
    def hooks():
        return sum(len(b._forward_hooks) + len(b._forward_pre_hooks) for b in tiny.blocks)

    before = hooks()
    generate(tiny, prompts, NAMES, GREEDY, site=SITES[1], vectors=vectors)
    assert hooks() == before
    with pytest.raises(IndexError):
        generate(tiny, [[1, 9999]], ["a"], GREEDY, site=SITES[1], vectors=vectors[:1])
    assert hooks() == before
