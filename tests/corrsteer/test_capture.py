"""What is captured while generating, against a plain forward pass over the whole text."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from corrsteer_world import SITE, TinySAE, word_rows

from steering_core.corrsteer import capture as module
from steering_core.corrsteer.capture import capture, feature_reader, raw_reader
from steering_core.corrsteer.scores import PooledStatistic
from steering_core.errors import ModelError
from steering_core.generation.decode import continue_batch, end_tokens
from steering_core.models.residual_stream import read_residuals
from steering_core.models.tokens import pad, tokenize

STATISTICS = [
    PooledStatistic(space, mask, pooling)
    for space in ("features", "raw")
    for mask in ("generation", "all")
    for pooling in ("max", "mean")
]


def captured(lm, prompts, new_tokens, statistics=STATISTICS, layers=(1, 3)):
    sae = TinySAE(lm.shape.d_model, 48)
    readers = []
    for layer in layers:
        site = replace(SITE, layer=layer)
        readers += [feature_reader(sae, site), raw_reader(site, lm.shape.d_model)]
    batch = pad(prompts, lm.tokenizer, side="left", prepend_bos=True)
    with capture(lm, readers, statistics, batch) as found:
        made = continue_batch(lm, batch, new_tokens, [])
    return found, made, sae


def expected(lm, sae, prompt, new, layer, statistic):
    """Pool over the positions that produce a token, from one pass over a single row."""
    fed = prompt + new[: -1 if new else None]
    mask = torch.ones(1, len(fed), dtype=torch.bool)
    residual = read_residuals(lm, [replace(SITE, layer=layer)], torch.tensor([fed]), mask)
    values = residual[f"blocks.{layer}.hook_resid_post"][0]
    if statistic.space == "features":
        values = sae.encode(values)
    values = values[len(prompt) - 1 if statistic.mask == "generation" else 1 :]
    return values.amax(0) if statistic.pooling == "max" else values.mean(0)


@pytest.fixture(scope="module")
def prompts(tiny):
    return tokenize(tiny.tokenizer, word_rows(5)["prompt"].tolist(), prepend_bos=True)


@pytest.mark.parametrize("new_tokens", [1, 7])
@pytest.mark.parametrize("buffered", [1, 3, 32])
def test_pooled_values_are_those_of_single_rows(tiny, prompts, new_tokens, buffered, monkeypatch):
    monkeypatch.setattr(module, "BUFFERED", buffered)
    found, made, sae = captured(tiny, prompts, new_tokens)
    for layer in (1, 3):
        for statistic in STATISTICS:
            values = found.values(layer, statistic)
            for row, (prompt, new) in enumerate(zip(prompts, made, strict=True)):
                wanted = expected(tiny, sae, prompt, new, layer, statistic)
                torch.testing.assert_close(values[row], wanted, atol=2e-5, rtol=2e-5)


def test_rows_that_ended_are_not_pooled_further(tiny, prompts, monkeypatch):
    """With a frequent word as the end token rows stop at different steps."""
    _, made, _ = captured(tiny, prompts, 8)
    common = np.bincount([t for row in made for t in row[1:4]]).argmax()
    monkeypatch.setattr(tiny.model.generation_config, "eos_token_id", int(common))
    found, made, sae = captured(tiny, prompts, 8)
    assert end_tokens(tiny) == [common] and len({len(row) for row in made}) > 1
    statistic = PooledStatistic("features", "generation", "mean")
    for row, (prompt, new) in enumerate(zip(prompts, made, strict=True)):
        wanted = expected(tiny, sae, prompt, new, 3, statistic)
        torch.testing.assert_close(found.values(3, statistic)[row], wanted, atol=2e-5, rtol=2e-5)


def test_padding_changes_nothing_under_mask_all(tiny, prompts):
    together, _, _ = captured(tiny, prompts, 2)
    alone, _, _ = captured(tiny, prompts[:1], 2)
    for statistic in STATISTICS:
        torch.testing.assert_close(
            together.values(1, statistic)[0], alone.values(1, statistic)[0], atol=2e-5, rtol=2e-5
        )


def test_prompt_of_one_token_has_only_its_last_position(tiny):
    found, _, _ = captured(tiny, [[5], [7]], 1)
    for pooling in ("max", "mean"):
        torch.testing.assert_close(
            found.values(1, PooledStatistic("raw", "all", pooling)),
            found.values(1, PooledStatistic("raw", "generation", pooling)),
        )


def test_capture_changes_no_token_and_leaves_no_hook(tiny, prompts):
    batch = pad(prompts, tiny.tokenizer, side="left", prepend_bos=True)
    plain = continue_batch(tiny, batch, 6, [])
    _, made, _ = captured(tiny, prompts, 6)
    assert made == plain
    with pytest.raises(RuntimeError, match="stop"):
        reader = raw_reader(SITE, tiny.shape.d_model)
        with capture(tiny, [reader], [PooledStatistic("raw")], batch):
            raise RuntimeError("stop")
    modules = [tiny.model, *tiny.blocks]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in modules)


def test_a_site_outside_the_model_is_an_error(tiny, prompts):
    with pytest.raises(ModelError, match="out of range"):
        captured(tiny, prompts, 1, layers=(9,))
