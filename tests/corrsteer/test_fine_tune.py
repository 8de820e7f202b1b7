"""Supervised fine-tuning."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from corrsteer_world import spacing_tokenizer, word_rows, words_task

from steering_core.config.corrsteer_schema import FineTuning
from steering_core.config.model import Model, SAESource
from steering_core.corrsteer.answers import Decoding, answer
from steering_core.corrsteer.fine_tune import fine_tune, learning_rate, training_ids
from steering_core.errors import DataError
from steering_core.models.language_model import load_language_model
from steering_core.training.fine_tuning import warm_up

HOW = Decoding(new_tokens=2, batch_rows=8)


def test_published_rates_and_warm_up():
    assert learning_rate(FineTuning(method="full"), 4000) == 1e-5
    assert learning_rate(FineTuning(method="full"), 1999) == 5e-6
    assert learning_rate(FineTuning(method="lora", learning_rate=1e-3), 10) == 1e-3
    assert (warm_up(4000), warm_up(1000), warm_up(3)) == (120, 100, 3)


def test_training_rows_start_with_bos_and_set_no_line_break_before_the_answer(tiny):
    rows = word_rows(3).assign(worked="w5")
    bos, end = tiny.tokenizer.bos_token_id, tiny.tokenizer.eos_token_id
    for (ids, n_prompt), prompt in zip(
        training_ids(tiny, rows, prepend_bos=True), rows["prompt"], strict=True
    ):
        assert ids[0] == bos and ids.count(bos) == 1 and ids[-1] == end
        assert tiny.tokenizer.decode(ids[1:-1]) == f"{prompt} w5"
        assert tiny.tokenizer.decode(ids[n_prompt:-1]) == "w5"
    keeping = replace(tiny, tokenizer=spacing_tokenizer())  # the tiny one sees no line break
    for prompt, between in (("w1 w2", [" "]), ("w1 w2 ", []), ("w1 w2\n", [])):
        (ids, n_prompt), *_ = training_ids(keeping, rows.assign(prompt=prompt), prepend_bos=True)
        tokens = keeping.tokenizer.convert_ids_to_tokens(ids)
        assert tokens[n_prompt:] == [*between, "w5", "<eos>"]
    with pytest.raises(DataError, match="tokens"):
        training_ids(tiny, rows.assign(prompt="w1 " * 70), prepend_bos=True)
    rows.loc[0, "prompt"] = "w1 " * 70
    assert len(training_ids(tiny, rows, prepend_bos=True, drop_long=True)) == 2
    with pytest.raises(DataError, match="no training row fits"):
        training_ids(tiny, rows.assign(prompt="w1 " * 70), prepend_bos=True, drop_long=True)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_training_teaches_the_answer_and_leaves_the_dtype(tiny_model, method):
    source = SAESource(path="unused/layer_{layer}")
    lm = load_language_model(Model(id=str(tiny_model), sae=source), "cpu")
    rows = word_rows(25).assign(worked="w5")
    settings = FineTuning(method=method, learning_rate=1e-2, epochs=3)
    trained = fine_tune(lm, rows, settings, seed=0, prepend_bos=True)
    assert np.mean(trained.losses[-10:]) < 0.5 * np.mean(trained.losses[:5])
    texts = answer(trained.lm, word_rows(8, 9), words_task(), HOW, None)["text"]
    assert (texts.str.split().str[0] == "w5").mean() > 0.5
    assert trained.lm.dtype == torch.float32 and trained.lm.blocks is not None
    assert not any(p.requires_grad for p in trained.lm.model.parameters())


def test_the_loss_is_that_of_the_answer_alone(tiny_model):
    source = SAESource(path="unused/layer_{layer}")
    lm = load_language_model(Model(id=str(tiny_model), sae=source), "cpu")
    rows = word_rows(1).assign(worked="w5 w6 w7")
    ((ids, n_prompt),) = training_ids(lm, rows, prepend_bos=True)
    scores = lm.model(torch.tensor([ids])).logits[0, n_prompt - 1 : -1]
    expected = torch.nn.functional.cross_entropy(scores, torch.tensor(ids[n_prompt:])).item()
    settings = FineTuning(method="full", epochs=1)
    trained = fine_tune(lm, rows, settings, seed=0, prepend_bos=True)
    assert trained.learning_rate == learning_rate(settings, 1)
    assert trained.losses == [pytest.approx(expected, rel=1e-5)]
