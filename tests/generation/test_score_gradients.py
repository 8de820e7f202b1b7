"""The Fisher information of a tiny model against its KL; the likelihood gradient against slopes."""

import numpy as np
import pandas as pd
import pytest
import torch
from steered_generation import divergence

from steering_core.errors import DataError
from steering_core.generation.decode import continuations
from steering_core.generation.sampling import Sampling
from steering_core.generation.score_gradients import (
    beginnings,
    estimate_fisher,
    likelihood_gradient,
)
from steering_core.models.head import final_hidden, logits_of
from steering_core.models.residual_stream import edit_residual
from steering_core.models.site import Site
from steering_core.models.tokens import pad

SITE = Site(2, "pre", False, True)
RNG = np.random.default_rng(3)
PROMPTS = [[1, *RNG.integers(4, 64, n).tolist()] for n in (2, 5, 3, 7, 4, 6)]
NAMES = [f"e{i}" for i in range(len(PROMPTS))]
SAMPLING = Sampling(new_tokens=6, temperature=1.0, top_p=0.9, seed=1)


def estimate(lm, samples, positions="last", batch_tokens=64):
    return estimate_fisher(
        lm, NAMES, PROMPTS, SITE, SAMPLING,
        samples=samples, positions=positions, batch_rows=8, batch_tokens=batch_tokens,
    )  # fmt: skip


@pytest.mark.parametrize("positions", ["last", "all"])
def test_half_of_the_quadratic_form_is_the_kl(tiny, positions):
    sums = estimate(tiny, 600, positions)
    found = sums.fisher(1e-6)
    made = continuations(
        tiny, PROMPTS, NAMES, SAMPLING, prepend_bos=True, intervention=None, batch_rows=8
    )
    for seed in range(3):
        vector = np.random.default_rng(seed).standard_normal(32)
        vector *= np.sqrt(2e-3 / found.kl(vector[None])[0])
        kl = []
        for sign in (1, -1):  # the third order in v cancels
            at = divergence(
                tiny, PROMPTS, made.tokens, site=SITE,
                vectors=np.tile(sign * vector, (len(PROMPTS), 1)),
                steer_prompt=positions == "all",
            )  # fmt: skip
            kl.append((at.kl_sum / at.n_tokens).mean())
        assert np.mean(kl) == pytest.approx(2e-3, rel=0.15)


def test_an_estimate_does_not_depend_on_the_batches(tiny):
    one, other = estimate(tiny, 2, batch_tokens=32), estimate(tiny, 2, batch_tokens=2048)
    np.testing.assert_allclose(one.information, other.information, rtol=1e-4, atol=1e-6)
    assert one.tokens == other.tokens


def test_texts_begin_with_training_rows_alone(tiny):
    texts = [" ".join(["w1"] * n) for n in (1, 4, 60, 5, 7)]
    splits = ["train", "train", "train", "test", "prompt"]
    examples = pd.DataFrame({"example_id": list("abcde"), "split": splits, "text": texts})
    names, rows = beginnings(tiny, examples, 10, 0, prepend_bos=True)
    assert names == ["a", "b", "c"] and [len(row) for row in rows] == [2, 3, 17]
    assert len(beginnings(tiny, examples, 2, 0, prepend_bos=True)[0]) == 2


def test_the_likelihood_gradient_is_the_slope_of_the_log_likelihood_ratio(tiny):
    target = np.array([True, False, True, False, False, True])
    found = likelihood_gradient(tiny, PROMPTS, target, SITE, batch_tokens=40)
    direction = np.random.default_rng(0).standard_normal(32)
    direction /= np.linalg.norm(direction)

    def mean_log_p(row, step):
        batch = pad([row], tiny.tokenizer, side="right", prepend_bos=True)
        added = torch.tensor(step * direction, dtype=torch.float32)
        where = (batch.mask & ~batch.bos)[..., None]
        with edit_residual(tiny, SITE, lambda residual: residual + added * where):
            hidden = final_hidden(tiny, batch.ids, batch.mask)[0, 1:-1]
        log_p = logits_of(tiny, hidden).double().log_softmax(dim=-1)
        return float(log_p.gather(1, batch.ids[0, 2:, None]).mean())

    slopes = np.array([(mean_log_p(r, 1e-2) - mean_log_p(r, -1e-2)) / 2e-2 for r in PROMPTS])
    expected = slopes[target].mean() - slopes[~target].mean()
    assert found.vector @ direction == pytest.approx(expected, rel=2e-2, abs=2e-3)
    assert found.texts == 6 and 0 < found.relative_error < 5
    swapped = likelihood_gradient(tiny, PROMPTS, ~target, SITE, batch_tokens=40)
    np.testing.assert_allclose(swapped.vector, -found.vector, atol=1e-9)


def test_texts_of_one_token_say_nothing(tiny):
    with pytest.raises(DataError, match="two training texts of at least two tokens"):
        likelihood_gradient(
            tiny, [[1, 5], *PROMPTS[:3]], np.array([True, True, False, False]), SITE,
            batch_tokens=64,
        )  # fmt: skip
