"""``published_mask``: the first positions of the padded prompt, against what a block put out."""

import numpy as np
import pytest
import torch
from corrsteer_world import SITE, TinySAE, session_of, word_rows

from steering_core.corrsteer.answers import Decoding
from steering_core.corrsteer.capture import capture, feature_reader, raw_reader
from steering_core.corrsteer.scores import PooledStatistic
from steering_core.corrsteer.selection import select
from steering_core.generation.decode import continue_batch
from steering_core.models.tokens import pad, tokenize

STATISTICS = [
    PooledStatistic(space, mask, pooling)
    for space in ("features", "raw")
    for mask in ("generation", "all")
    for pooling in ("max", "mean")
]


@pytest.fixture(scope="module")
def batch(tiny):
    prompts = tokenize(tiny.tokenizer, word_rows(5)["prompt"].tolist(), prepend_bos=True)
    return pad(prompts, tiny.tokenizer, side="left", prepend_bos=True)


def readers(lm):
    return [feature_reader(TinySAE(lm.shape.d_model, 48), SITE), raw_reader(SITE, lm.shape.d_model)]


@pytest.mark.parametrize("new_tokens", [1, 4, 14])
def test_as_many_positions_from_the_start_as_the_answer_has_tokens(
    tiny, batch, new_tokens, monkeypatch
):
    """Up to 14 positions of 9 in the prompt: those generated come next."""
    assert batch.ids.shape[1] < 14 and not batch.mask.all()
    if new_tokens > 1:  # rows that end at different steps
        made = continue_batch(tiny, batch, new_tokens, [])
        common = np.bincount([t for row in made for t in row[1:4]]).argmax()
        monkeypatch.setattr(tiny.model.generation_config, "eos_token_id", int(common))
    put_out = []
    block = tiny.blocks[SITE.layer]
    hook = block.register_forward_hook(lambda m, args, out: put_out.append(out))
    with capture(tiny, readers(tiny), STATISTICS, batch, published_length=new_tokens) as found:
        made = continue_batch(tiny, batch, new_tokens, [])
    hook.remove()
    with capture(tiny, readers(tiny), STATISTICS, batch) as usual:
        assert continue_batch(tiny, batch, new_tokens, []) == made
    residual = torch.cat([out[0] if isinstance(out, tuple) else out for out in put_out], dim=1)
    sae = TinySAE(tiny.shape.d_model, 48)
    for statistic in STATISTICS:
        got = found.values(1, statistic)
        if statistic.mask == "generation":
            torch.testing.assert_close(got, usual.values(1, statistic))
            continue
        for row, new in enumerate(made):
            first = residual[row, : len(new)]
            values = sae.encode(first) if statistic.space == "features" else first
            wanted = values.amax(0) if statistic.pooling == "max" else values.mean(0)
            torch.testing.assert_close(got[row], wanted, atol=2e-5, rtol=2e-5)


def test_selection_accumulates_it_where_it_is_asked_for(tiny):
    rows, how = word_rows(10), Decoding(new_tokens=2, batch_rows=4)
    raw = [raw_reader(SITE, tiny.shape.d_model)]
    statistics = [PooledStatistic("raw", "all"), PooledStatistic("raw", "generation")]

    def means(**options):
        found = select(session_of(tiny, how), rows, raw, statistics, **options)
        parts = found.accumulators.parts
        return [parts[1, statistic].correlation.result().mean for statistic in statistics]

    usual, published = means(), means(published_mask=True)
    assert not np.allclose(usual[0], published[0], atol=1e-3)
    np.testing.assert_allclose(usual[1], published[1], rtol=1e-5)
