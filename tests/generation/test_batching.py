"""Batches as large as fit: halved when memory runs out, and nothing else is swallowed."""

import logging
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from steered_generation import generate, generate_method

from steering_core.generation import batching
from steering_core.generation.batching import (
    Batches,
    batches_for,
    cache_bytes,
    is_out_of_memory,
    largest_batch,
    width_groups,
)
from steering_core.generation.sampling import Sampling
from steering_core.methods.programs import solve_programs
from steering_core.methods.solution_vectors import SolutionVectors
from steering_core.methods.solutions import GridPoint
from steering_core.models.language_model import LanguageModel
from steering_core.models.site import Site
from steering_core.models.tokens import tokenize
from steering_core.optimize.path import SteeringPath
from steering_core.probes.linear_probe import LinearProbe

SITE = Site(1, "post", False, True)
GREEDY = Sampling(new_tokens=5, temperature=None)


FULL = torch.OutOfMemoryError("CUDA out of memory.")


def memory(limit, error=FULL):
    """A run that keeps what it was given and fails beyond ``limit`` items."""
    done, tried = [], []

    def run(chosen):
        tried.append(len(chosen))
        if len(chosen) > limit:
            raise error
        done.extend(chosen)

    return run, done, tried


def sizes_of(n, size, run, step=1):
    """Go through ``n`` items; the sizes of the slices without filling, and the size at the end."""
    batches = Batches(size, step)
    return [len(chosen) for chosen, _ in batches.each(range(n), run)], batches.size


@given(n=st.integers(1, 60), size=st.integers(1, 70), limit=st.integers(1, 70))
def test_every_item_once_in_order_and_never_more_than_fit(n, size, limit):
    run, done, tried = memory(limit)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batching.gc, "collect", lambda: 0)  # slow, and nothing to collect
        _, fitted = sizes_of(n, size, run)
    assert done == list(range(n))
    assert fitted <= size
    # After a failure the size stays down: no more failures than halvings.
    assert sum(k > limit for k in tried) <= np.ceil(np.log2(size)) + 1


def test_halving_is_logged(caplog):
    run, _, tried = memory(5)
    with caplog.at_level(logging.WARNING):
        assert sizes_of(20, 20, run) == ([5, 5, 5, 5], 5)
    assert tried == [20, 10, 5, 5, 5, 5]
    assert [r.message for r in caplog.records] == [
        "out of memory with 20 at a time: going on with 10",
        "out of memory with 10 at a time: going on with 5",
    ]


def test_one_item_that_does_not_fit_and_other_errors_come_through():
    run, _, tried = memory(0)
    with pytest.raises(torch.OutOfMemoryError):
        sizes_of(4, 4, run)
    assert tried == [4, 2, 1]
    run, _, tried = memory(1, RuntimeError("shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes"):
        sizes_of(4, 4, run)
    assert tried == [4]


@pytest.mark.parametrize(
    ("limit", "tried", "sizes", "done"),
    [
        (40, [40, 8], [40, 2], 48),  # two items and their filling
        (16, [40, 24, 16, 16, 16], [16, 16, 10], 48),
        (8, [40, 24, 16] + [8] * 6, [8] * 5 + [2], 48),
        (5, [40, 24, 16, 8] + [4] * 10 + [2], [4] * 10 + [2], 42),
        (1, [40, 24, 16, 8, 4, 2] + [1] * 42, [1] * 42, 42),
    ],
)
def test_rows_are_filled_up_until_so_few_do_not_fit(caplog, limit, tried, sizes, done):
    run, made, seen = memory(limit)
    assert sizes_of(42, 40, run, step=8)[0] == sizes
    assert (seen, len(made)) == (tried, done)
    assert sorted(set(made)) == list(range(42))
    assert ("last digits" in caplog.text) == (limit < 8)


def test_few_rows_that_do_not_fit_when_filled_are_run_as_they_are():
    run, made, seen = memory(4)
    assert sizes_of(3, 8, run, step=8) == ([3], 3)
    assert (seen, made) == ([8, 3], [0, 1, 2])


@pytest.mark.parametrize(
    ("fit", "wanted", "size", "step"),
    [(100, 50, 56, 8), (100, 3, 8, 8), (21, 50, 16, 8), (8, 50, 8, 8), (5, 50, 5, 1), (5, 3, 3, 1)],
)
def test_filling_stays_within_the_cache(tiny, monkeypatch, caplog, fit, wanted, size, step):
    monkeypatch.setattr(batching, "CACHE_BYTES", fit * cache_bytes(tiny, 20))
    batches = batches_for(tiny, wanted, 20)
    assert (batches.size, batches.step) == (size, step)
    assert ("last digits" in caplog.text) == (step == 1)


def test_the_width_of_a_prompt_does_not_depend_on_batches_but_on_what_padding_costs(tiny):
    lengths = [3, 33, 14, 40, 20, 5]
    # Padding a few rows costs less than twenty passes more.
    assert width_groups(tiny, lengths, 20) == [(44, [0, 1, 2, 3, 4, 5])]
    # Many short rows cost more.
    many = [3] * 200 + [40]
    assert width_groups(tiny, many, 2) == [(16, list(range(200))), (48, [200])]
    # A large group takes in no more.
    many = [40] * 64 + [20]
    assert width_groups(tiny, many, 2) == [(32, [64]), (48, list(range(64)))]
    on_gpu = SimpleNamespace(device=torch.device("cuda"))
    assert width_groups(on_gpu, lengths, 20) == [(0, [0, 5, 2, 4, 1, 3])]


def test_what_this_torch_raises_on_the_cpu_is_known():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**55)
    assert is_out_of_memory(caught.value)
    assert not is_out_of_memory(RuntimeError("index out of range"))


def test_texts_do_not_change_when_memory_runs_out(tiny, monkeypatch):
    prompts = tokenize(
        tiny.tokenizer, [" ".join(f"w{k + j}" for j in range(k % 4 + 1)) for k in range(36)],
        prepend_bos=True,
    )  # fmt: skip
    names = [f"e{i}" for i in range(36)]
    vectors = np.random.default_rng(0).normal(size=(36, 32)) * 3
    kwargs = {"site": SITE, "vectors": vectors}
    whole = generate(tiny, prompts, names, GREEDY, **kwargs)
    own, sizes, ticks = tiny.model.generate, [], []
    hooks = [len(b._forward_hooks) + len(b._forward_pre_hooks) for b in tiny.blocks]

    def scarce(input_ids, **options):
        sizes.append(len(input_ids))
        if len(input_ids) > 16:
            raise torch.OutOfMemoryError("out of memory")
        return own(input_ids=input_ids, **options)

    monkeypatch.setattr(tiny.model, "generate", scarce)
    assert generate(tiny, prompts, names, GREEDY, **kwargs, tick=ticks.append) == whole
    assert sizes == [40, 24, 16, 16, 8]
    assert ticks == [16, 16, 4]
    left = [len(b._forward_hooks) + len(b._forward_pre_hooks) for b in tiny.blocks]
    assert left == hooks  # transformers may have put hooks of its own there before


def test_keys_and_values_are_counted(tiny, monkeypatch):
    """Against the cache that transformers really builds."""
    batch, width = 3, 11
    ids = torch.full((batch, width), 5)
    cache = tiny.model(input_ids=ids, use_cache=True).past_key_values
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert cache_bytes(tiny, width) * batch == held
    monkeypatch.setattr(batching, "CACHE_BYTES", held)
    assert largest_batch(tiny, width) == batch
    assert largest_batch(tiny, 10**9) == 1


def test_grouped_query_attention_is_counted():
    from transformers import Gemma2Config, Gemma2ForCausalLM

    config = Gemma2Config(
        vocab_size=50, hidden_size=32, intermediate_size=16, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, head_dim=24,
    )  # fmt: skip
    model = Gemma2ForCausalLM(config).to(torch.bfloat16)
    cache = model(input_ids=torch.full((2, 7), 5), use_cache=True).past_key_values
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert cache_bytes(LanguageModel(model, None, None), 7) * 2 == held
    # Soft-capped scores: sdpa would drop the cap.
    assert model.config._attn_implementation == "eager"


def test_sdpa_where_the_model_allows(tiny):
    assert tiny.model.config._attn_implementation == "sdpa"


def test_greedy_tokens_of_sdpa_batches_are_those_of_eager_rows(tiny, tiny_model):
    """Batch 1, no cache, eager: the slow path."""
    from transformers import AutoModelForCausalLM

    slow = AutoModelForCausalLM.from_pretrained(tiny_model, attn_implementation="eager")
    slow.eval().requires_grad_(False)
    prompts = tokenize(tiny.tokenizer, ["w1 w2 w3", "w4", "w5 w6 w7 w8 w9"], prepend_bos=True)
    got = generate(tiny, prompts, ["a", "b", "c"], GREEDY, site=SITE)
    for prompt, tokens in zip(prompts, got, strict=True):
        row = list(prompt)
        for token in tokens:
            logits = slow(input_ids=torch.tensor([row]), use_cache=False).logits[0, -1]
            assert int(logits.argmax()) == token
            row.append(token)


@pytest.mark.parametrize("batch_size", [1, 2, 50])
def test_a_whole_grid_in_one_run_equals_its_strengths_apart(tiny, tmp_path, batch_size):
    rng = np.random.default_rng(0)
    decoder = rng.standard_normal((60, 32))
    weight = rng.standard_normal(32)
    path = SteeringPath.fit(decoder, weight)
    probe = LinearProbe(weight, 0.0, (0, 1), 1.0, 1.0, (1.0,), 0.0, False, 10)
    names = ["a", "b", "c"]
    residuals = np.outer([3.0, -1.0, -4.0], weight / (weight @ weight))
    points = [GridPoint("qp_optimal", i, "tau", tau, tau, 1.0) for i, tau in enumerate((1, 4, 40))]
    prompts = pd.DataFrame({"example_id": names, "text": ["w1 w2", "w3", "w4 w5 w6"]})
    sampling = Sampling(new_tokens=6, temperature=1.2, top_p=0.9)
    kwargs = {"positions": "last", "max_tokens": 20, "batch_size": batch_size}

    def run(points):
        rows = solve_programs(points, names, residuals, probe, path)
        found = SolutionVectors(rows, tmp_path / "unused", path)
        return generate_method(tiny, prompts, found, SITE, sampling, **kwargs)

    together = run(points)
    apart = pd.concat([run([point]) for point in points], ignore_index=True)
    pd.testing.assert_frame_equal(together, apart)
    assert together["text"].nunique() > 3
