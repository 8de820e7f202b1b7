"""The control tokens of a chat template are tokens in every stage; those in data are text."""

import copy
from dataclasses import replace

import pandas as pd
import pytest
import torch
from corrsteer_world import SITE, word_rows, words_task

from steering_core.config.corrsteer_schema import CorrSteerSettings
from steering_core.corrsteer.answers import Decoding, Session, complete
from steering_core.corrsteer.examples import PromptOptions, build_examples, build_prompts
from steering_core.corrsteer.fine_tune import training_ids
from steering_core.corrsteer.tasks import Source
from steering_core.corrsteer.training_data import fitting, persona_pairs
from steering_core.errors import DataError
from steering_core.generation import decode

BOS, EOS = 1, 2
#: It opens a turn with the end token, so that the turn is more than words.
TEMPLATE = "<bos>{% for m in messages %}<eos>{{ m['content'] }}<eos>{% endfor %}"


@pytest.fixture
def chat(tiny):
    tokenizer = copy.deepcopy(tiny.tokenizer)
    tokenizer.chat_template = TEMPLATE
    return replace(tiny, tokenizer=tokenizer)


def prompt_of(chat, question="w1 w2"):
    options = PromptOptions(chat_template=True)
    nothing = pd.DataFrame(columns=["prompt", "worked"])
    return build_prompts(words_task(), [question], nothing, options, chat.tokenizer)[0]


def items(prompts):
    return pd.DataFrame(
        {
            "item_id": [f"r:{i}" for i in range(len(prompts))],
            "source_split": "test",
            "prompt": prompts,
            "gold": "even",
            "worked": "w0",
            "letters": [[] for _ in prompts],
        }
    )


def examples(chat, prompts, **settings):
    return build_examples(
        items(prompts),
        words_task(),
        Source("d", "test"),
        CorrSteerSettings(**settings),
        chat.tokenizer,
        seed=0,
        prepend_bos=True,
        max_tokens=60,
    )


def test_rows_that_name_a_special_token_are_dropped_from_a_chat_and_counted(chat, caplog):
    prompts = [*(f"w{i} w{i + 1}" for i in range(40)), "w1 <eos> w2", "<bos>w3"]
    rows, dropped = examples(chat, prompts, chat_template=True)
    assert dropped == {"names_a_special_token": 2}
    assert len(rows) == 40 and "2 of 42 rows name a special token" in caplog.text
    assert set(rows["n_tokens"]) == {5}  # <bos> <eos> two words <eos>
    with pytest.raises(DataError, match="every row names a special token"):
        examples(chat, ["<eos> w1"] * 3, chat_template=True)


def test_without_a_chat_they_are_kept_as_text(chat):
    prompts = [*(f"w{i} w{i + 1}" for i in range(40)), "<bos>w3"]
    rows, _ = examples(chat, prompts)
    assert len(rows) == 41
    # BOS, then "<", "bos", ">" and the word
    assert rows.set_index("prompt").loc["<bos>w3", "n_tokens"] == 5


@pytest.mark.parametrize("chat_template", [True, False])
def test_answers_follow_the_tokens_of_the_template(chat, chat_template, monkeypatch):
    seen = []

    def note(lm, batch, new_tokens, processors):
        seen.extend(row[kept].tolist() for row, kept in zip(batch.ids, batch.mask, strict=True))
        return [[5]] * len(batch.ids)

    monkeypatch.setattr(decode, "continue_batch", note)
    rows = word_rows(1).assign(prompt=prompt_of(chat))
    list(complete(chat, rows, Decoding(1, chat_template=chat_template)))
    if chat_template:
        assert seen[0] == [BOS, EOS, 5, 6, EOS]
    else:
        assert seen[0][0] == BOS and not {BOS, EOS} & set(seen[0][1:])


def test_training_rows_hold_the_tokens_of_the_template(chat):
    rows = word_rows(1).assign(prompt=prompt_of(chat), worked="w5")
    ((ids, n_prompt),) = training_ids(chat, rows, prepend_bos=True, chat_template=True)
    assert (ids, n_prompt) == ([BOS, EOS, 5, 6, EOS, 9, EOS], 5)


def test_directions_are_read_behind_the_tokens_of_the_template(chat):
    task = replace(words_task(), personas=("w7 ", "w8 "))
    run = Session(chat, task, Decoding(1, chat_template=True), None, False, {1: SITE})
    sides = persona_pairs(task, [prompt_of(chat)], chat.tokenizer, chat_template=True)
    assert fitting(run, *sides, SITE) == sides
    model = copy.deepcopy(chat.model)  # transformers leaves hooks behind that read hidden states
    for side, word in zip(sides, (11, 12), strict=True):
        (got,) = run.residuals(side, SITE)
        ids = torch.tensor([[BOS, EOS, word, 5, 6, EOS]])
        states = model(input_ids=ids, output_hidden_states=True).hidden_states
        torch.testing.assert_close(torch.tensor(got), states[SITE.layer + 1][0, -1])
