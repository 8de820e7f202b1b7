"""Splits and prompts of a run."""

from types import SimpleNamespace

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from steering_core.config.corrsteer_schema import CorrSteerSettings
from steering_core.corrsteer.examples import (
    PromptOptions,
    assign_splits,
    build_examples,
    read_examples,
    suggest_chat_template,
    summary,
    write_examples,
)
from steering_core.corrsteer.tasks import TASKS, Source
from steering_core.data.columns import normal_form
from steering_core.errors import ConfigError, DataError

OWN = Source("d", "test")
GIVEN = Source("d", "train", None, "test")


def items(n, splits=("test",), duplicates=0):
    prompts = [f"w{i % 60} w{i}" for i in range(n - duplicates)] + ["w0 w0"] * duplicates
    return pd.DataFrame(
        {
            "item_id": [f"r:{i}" for i in range(n)],
            "source_split": [splits[i % len(splits)] for i in range(n)],
            "prompt": prompts,
            "gold": "A",
            "worked": "A",
            "letters": [["A", "B"]] * n,
        }
    )


def prompts_by_split(rows):
    return {name: set(rows.loc[rows["split"] == name, "prompt"]) for name in rows["split"].unique()}


@given(seed=st.integers(0, 2**31 - 1), duplicates=st.integers(0, 40))
@settings(max_examples=30, deadline=None)
@pytest.mark.parametrize(("source", "splits"), [(OWN, ("test",)), (GIVEN, ("train", "test"))])
def test_no_prompt_is_in_two_splits_whatever_the_seed(source, splits, seed, duplicates):
    rows, _ = assign_splits(
        items(200, splits, duplicates), source, CorrSteerSettings(few_shot=2), seed
    )
    parts = prompts_by_split(rows)
    names = ["train", "validation", "test"]
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            assert not parts[first] & parts[second]
    assert (rows["split"] == "shot").sum() == 2
    assert rows["item_id"].is_unique


def test_own_split_has_the_published_sizes():
    rows, dropped = assign_splits(items(400), OWN, CorrSteerSettings(), 0)
    counts = rows["split"].value_counts()
    assert dropped == {}
    assert counts.to_dict() == {"test": 280, "train": 108, "validation": 12}


def test_seed_changes_the_split_and_the_same_seed_does_not():
    def test_ids(seed):
        rows, _ = assign_splits(items(100), OWN, CorrSteerSettings(), seed)
        return set(rows.loc[rows["split"] == "test", "item_id"])

    assert test_ids(1) == test_ids(1) != test_ids(2)


@pytest.mark.parametrize("seed", [0, 42])
def test_the_published_split_has_one_test_set_and_trains_on_most_of_it(seed, caplog):
    def split(seed, source=OWN, **options):
        rows, _ = assign_splits(items(400, ("test",)), source, CorrSteerSettings(), seed, **options)
        return rows.groupby("split")["item_id"].agg(set)

    published, mine = split(seed, published=True), split(seed)
    assert published["test"] == split(42)["test"]
    assert published["train"] == mine["train"] and published["validation"] == mine["validation"]
    seen = len((published["train"] | published["validation"]) & published["test"])
    assert (seen == 0) if seed == 42 else (60 < seen < 110)  # of 120: two thirds or more
    assert (f"{seen} of 120" in caplog.text) is (seed != 42)


def test_a_test_split_of_the_datasets_own_is_no_matter_of_seeds():
    rows = items(200, ("train", "test"))
    usual, published = (
        assign_splits(rows, GIVEN, CorrSteerSettings(), 3, published=published)[0]
        for published in (False, True)
    )
    pd.testing.assert_frame_equal(usual, published)


def test_given_test_split_is_kept_whole_and_training_is_capped():
    rows, _ = assign_splits(
        items(200, ("train", "test")), GIVEN, CorrSteerSettings(train_rows=7, validation_rows=3), 0
    )
    assert rows["split"].value_counts().to_dict() == {"test": 100, "train": 7, "validation": 3}
    assert set(rows.loc[rows["split"] == "test", "source_split"]) == {"test"}


def with_copies(rows, of, split):
    """The rows and one more of ``split`` for each of ``of``, another only in case and spaces."""
    copies = rows.loc[of].assign(source_split=split)
    copies["prompt"] = " " + copies["prompt"].str.upper().str.replace(" ", "\n")
    copies["item_id"] = [f"copy:{i}" for i in range(len(copies))]
    return pd.concat([rows, copies], ignore_index=True)


def forms_by_split(rows):
    return {
        name: [normal_form(prompt) for prompt in rows.loc[rows["split"] == name, "prompt"]]
        for name in ("train", "validation", "test", "shot")
    }


def disjoint(rows):
    parts = [set(forms) for forms in forms_by_split(rows).values()]
    return sum(map(len, parts)) == len(set.union(*parts))


@pytest.mark.parametrize("seed", range(4))
def test_no_prompt_is_in_two_splits_in_another_form(seed, caplog):
    own, none = assign_splits(
        with_copies(items(60), range(40), "test"), OWN, CorrSteerSettings(few_shot=3), seed
    )
    assert disjoint(own) and len(own) + sum(none.values()) == 100
    rows = with_copies(items(100, ("train", "test")), range(0, 20, 2), "test")  # training rows
    given, dropped = assign_splits(rows, GIVEN, CorrSteerSettings(few_shot=3), seed)
    assert disjoint(given)
    assert sum(dropped.values()) == 10 == len(rows) - len(given)
    assert set(dropped) <= {f"{n}_also_in_another_split" for n in ("train", "validation")}
    assert "left out because their prompt is in another split too: " in caplog.text


def test_examples_in_the_prompt_are_different_and_answered_by_no_row(caplog):
    """A row whose own answer stands in its prompt would be a success whatever the model knows."""
    rows = with_copies(items(40, ("train",)), range(40), "train")
    rows = pd.concat([rows, items(10, ("test",)).assign(item_id=lambda f: "t" + f["item_id"])])
    rows["prompt"] = [*rows["prompt"][:80], *(f"q{i}" for i in range(10))]
    found, dropped = assign_splits(rows, GIVEN, CorrSteerSettings(few_shot=5), 0)
    parts = forms_by_split(found)
    assert len(set(parts["shot"])) == 5
    assert not set(parts["shot"]) & {*parts["train"], *parts["validation"], *parts["test"]}
    assert dropped == {"train_also_an_example": 5}
    assert "5 train also an example" in caplog.text


def test_no_example_is_a_test_row_even_where_training_rows_are():
    published, _ = assign_splits(items(400), OWN, CorrSteerSettings(few_shot=3), 0, published=True)
    parts = forms_by_split(published)
    assert set(parts["train"]) & set(parts["test"])
    assert not set(parts["shot"]) & {*parts["validation"], *parts["test"]}


def test_empty_split_is_an_error():
    with pytest.raises(DataError, match="train split"):
        assign_splits(items(20), OWN, CorrSteerSettings(few_shot=5), 0)


@pytest.fixture
def tokenizer(tiny_model):
    return AutoTokenizer.from_pretrained(tiny_model)


def build(tokenizer, rows, max_tokens=60, **options):
    return build_counted(tokenizer, rows, max_tokens, **options)[0]


def build_counted(tokenizer, rows, max_tokens=60, **options):
    return build_examples(
        rows,
        TASKS["mmlu"],
        OWN,
        CorrSteerSettings(**options),
        tokenizer,
        seed=3,
        prepend_bos=True,
        max_tokens=max_tokens,
    )


def test_shots_and_reasoning_stand_before_every_question_of_every_split(tokenizer):
    rows = build(tokenizer, items(50), few_shot=2, chain_of_thought=True, max_tokens=99)
    asked = rows[rows["split"] != "shot"]
    start = asked["prompt"].iloc[0].split("\n\n")[:3]
    assert start[0].startswith("Let's think step by step. Answer the question after the 'Answer:'")
    assert all(part.endswith(" A") for part in start[1:])
    assert all(prompt.split("\n\n")[:3] == start for prompt in asked["prompt"])
    assert set(asked["split"]) == {"train", "validation", "test"}


def test_published_split_is_an_option(tokenizer):
    usual, published, again = (
        build(tokenizer, items(100), **options) for options in ({}, {"published_split": True}, {})
    )
    tested = [set(rows.loc[rows["split"] == "test", "example_id"]) for rows in (usual, published)]
    assert tested[0] != tested[1] and again.equals(usual)


def test_round_trip_and_summary(tokenizer, tmp_path):
    rows = build(tokenizer, items(50))
    write_examples(tmp_path / "e.parquet", rows)
    again = read_examples(tmp_path / "e.parquet", "train")
    assert again["example_id"].tolist() == rows.loc[rows["split"] == "train", "example_id"].tolist()
    assert summary(rows, 3, {"too_long": 1}) == {
        "seed": 3,
        "rows": {"test": 35, "train": 13, "validation": 2},
        "dropped": {"too_long": 1},
        "suggestion": "",
    }


def test_long_prompts_are_an_error_or_dropped(tokenizer):
    rows = items(60)
    rows.loc[5, "prompt"] = "w1 " * 30
    with pytest.raises(DataError, match="long_prompts"):
        build(tokenizer, rows, max_tokens=20)
    kept, dropped = build_counted(tokenizer, rows, max_tokens=20, long_prompts="drop")
    assert "r:5" not in set(kept["example_id"])
    assert dropped == {"too_long": 1}


BARE = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
SYSTEM = "You are a helpful assistant. " + BARE


@pytest.mark.parametrize(
    ("model", "template", "suggested"),
    [
        ("google/gemma-2-2b-it", BARE, True),
        ("org/Model-135M-Instruct", BARE, True),
        ("/models/llama-2-7b-chat-hf/", BARE, True),
        ("org/base", SYSTEM, True),
        ("org/base", BARE, False),
        ("org/italian-chatter", BARE, False),
        ("google/gemma-2-2b-it", None, False),  # the tokenizer has none
    ],
)
def test_a_chat_template_is_suggested_for_a_tuned_model(model, template, suggested, caplog):
    tokenizer = SimpleNamespace(chat_template=template)
    found = suggest_chat_template(PromptOptions(), model, tokenizer)
    assert ("chat_template: true" in found) == suggested
    assert suggest_chat_template(PromptOptions(chat_template=True), model, tokenizer) == ""
    rows = pd.DataFrame({"split": ["train", "test"]})
    assert summary(rows, 0, {}, suggestion=found)["suggestion"] == found
    assert ("chat_template: true" in caplog.text) == suggested


def test_chat_template_is_used_or_an_error(tokenizer):
    with pytest.raises(ConfigError, match="chat_template"):
        build(tokenizer, items(50), chat_template=True)
    tokenizer.chat_template = "<bos>{% for m in messages %}w9 {{ m['content'] }} w8{% endfor %}"
    rows = build(tokenizer, items(50), chat_template=True)
    assert rows["prompt"].str.match(r"<bos>w9 .* w8$").all()
    # the template's own BOS is not counted twice: BOS w9 <two words> w8
    assert set(rows["n_tokens"]) == {5}
