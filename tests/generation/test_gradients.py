"""Gradients with respect to the residual stream, against finite differences."""

import numpy as np
import pytest
import torch

from steering_core.generation.score_gradients import residual_gradients
from steering_core.models.head import final_hidden, logits_of
from steering_core.models.residual_stream import edit_residual
from steering_core.models.site import Site
from steering_core.models.tokens import pad

ROWS = [[1, 9, 20, 33, 7], [1, 40, 8]]


def log_likelihood(lm, site, batch, predicting, tokens, added):
    with edit_residual(lm, site, lambda residual: residual + added):
        hidden = final_hidden(lm, batch.ids, batch.mask)[predicting]
    log_p = logits_of(lm, hidden).double().log_softmax(dim=-1)
    return log_p.gather(1, tokens[:, None]).sum()


@pytest.mark.parametrize("stream", ["pre", "post", "mid", "mlp_out"])
def test_a_gradient_is_the_slope_of_the_log_likelihood(tiny, stream):
    site = Site(1, stream, False, True)
    batch = pad(ROWS, tiny.tokenizer, side="right", prepend_bos=True)
    predicting = torch.tensor([[0, 1, 1, 1, 0], [0, 1, 0, 0, 0]], dtype=torch.bool)
    tokens = torch.tensor([[5, 6, 7, 8], [9, 9, 9, 10]])
    found = residual_gradients(tiny, site, batch, predicting, lambda _, rows: tokens[:, rows])
    assert found.shape == (2, 2, 5, 32)
    assert not found[:, :, 0].eq(0).all()  # later positions attend to BOS
    assert found[:, 1, 2:].eq(0).all()  # nothing is predicted from there
    direction = torch.tensor(np.random.default_rng(0).normal(size=(2, 5, 32)), dtype=torch.float32)
    step = 1e-2
    for k in range(2):
        up, down = (
            log_likelihood(tiny, site, batch, predicting, tokens[k], sign * step * direction)
            for sign in (1, -1)
        )
        slope = float((up - down) / (2 * step))
        assert float((found[k] * direction).sum()) == pytest.approx(slope, rel=1e-2, abs=1e-2)


def test_targets_see_the_logits_of_their_positions(tiny, monkeypatch):
    monkeypatch.setattr("steering_core.generation.score_gradients._ROWS", 2)
    site = Site(1, "pre", False, True)
    batch = pad(ROWS, tiny.tokenizer, side="right", prepend_bos=True)
    predicting = torch.tensor([[0, 1, 1, 1, 0], [0, 1, 0, 0, 0]], dtype=torch.bool)
    seen = []

    def targets(log_p, rows):
        seen.append((rows.start, rows.stop))
        return log_p.argmax(dim=-1)[None]

    in_pieces = residual_gradients(tiny, site, batch, predicting, targets)
    assert seen == [(0, 2), (2, 4)]
    monkeypatch.setattr("steering_core.generation.score_gradients._ROWS", 64)
    torch.testing.assert_close(
        in_pieces, residual_gradients(tiny, site, batch, predicting, targets)
    )
    assert not any(weight.requires_grad for weight in tiny.model.parameters())
