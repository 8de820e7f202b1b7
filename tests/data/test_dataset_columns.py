"""A text column holds texts, a label a text, a whole number or a boolean; equal texts are found."""

import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steering_core.config.corrsteer_schema import CorrSteerTask
from steering_core.config.task import Task
from steering_core.corrsteer.read_items import fetch_items
from steering_core.data.columns import (
    joined_groups,
    normal_form,
    text_in,
    texts_in,
    whole_number_in,
)
from steering_core.data.labelled import labelled_rows, read_table
from steering_core.errors import DataError

LABELS = [0, 1, 0, 1]
TEXTS = [f"t{i}" for i in range(4)]
NO_TEXTS = {
    "lists": ([["a b", "c d"]] * 4, "a list, not a text"),
    "chat messages": (
        [[{"role": "user", "content": f"hi {i}"}] for i in range(4)],
        "chat template",
    ),
    "token ids": ([list(range(2000))] * 4, "a list, not a text"),
    "objects": ([{"en": text} for text in TEXTS], r"an object, not a text: .*'en': 't0'"),
    "numbers": ([1.5, 2.0, 3.0, 4.0], "a number, not a text: '1.5'"),
    "whole numbers": ([7, 8, 9, 10], "a whole number, not a text: '7'"),
    "booleans": ([True, False, True, True], "a boolean, not a text"),
    "bytes": ([b"a", b"b", b"c", b"d"], "bytes, not a text.*Decode it"),
    "one list": (["a", "b", ["c"], "d"], r"text: row 2 \(counted from 0\) of column 'text'"),
}


def written(folder: Path, table: pd.DataFrame, kind: str) -> str:
    path = folder / f"d.{kind}"
    if kind == "parquet":
        table.to_parquet(path)
    else:
        table.to_json(path, orient="records", lines=True)
    return str(path)


@pytest.mark.parametrize(
    ("case", "kind"),
    [
        (case, kind)
        for case in NO_TEXTS
        for kind in ("parquet", "jsonl")
        if (case, kind) not in (("bytes", "jsonl"), ("one list", "parquet"))  # cannot hold it
    ],
)
def test_a_text_column_without_texts_is_refused_with_its_row(tmp_path: Path, case: str, kind: str):
    values, message = NO_TEXTS[case]
    table = pd.DataFrame({"text": pd.Series(values), "label": LABELS})
    task = Task(dataset=written(tmp_path, table, kind), text="text", label="label", concept="c")
    with pytest.raises(DataError, match=message):
        labelled_rows(read_table(task), task)


@pytest.mark.parametrize("column", ["question", "positive", "negative"])
@pytest.mark.parametrize(
    "value", [3, 2.5, True, {"a": 1}, [1, 2], [["a"]], b"a", pd.Timestamp("2020-01-01")], ids=str
)
def test_no_side_of_a_pair_is_left_out_for_being_no_text(column: str, value: object):
    sides = {"question": "Q?", "positive": "yes", "negative": "no"}
    table = pd.DataFrame([sides, {**sides, column: value}], dtype=object)
    task = Task(
        dataset="d.jsonl",
        question="question",
        positive="positive",
        negative="negative",
        concept="c",
    )
    with pytest.raises(DataError, match=rf"{column}: row 1 .* not a text"):
        labelled_rows(table, task)


CATEGORIES = pd.Categorical(["pos", "neg"] * 2)


@pytest.mark.parametrize(
    ("labels", "change", "expected"),
    [
        (pd.Categorical([0, 1, 0, 1]), {}, LABELS),
        (CATEGORIES, {"positive_label": "neg"}, LABELS),
        (pd.Categorical(["0.2", "0.9"] * 2), {"threshold": 0.5}, LABELS),
        (pd.array(LABELS, dtype="Int64"), {}, LABELS),
        (pd.array([False, True] * 2, dtype="boolean"), {}, LABELS),
        ([0, 1.0, 0.0, 1], {}, LABELS),
    ],
    ids=str,
)
def test_labels_that_serve(tmp_path: Path, labels: list, change: dict, expected: list):
    table = pd.DataFrame({"text": TEXTS, "label": labels})
    path = written(tmp_path, table, "parquet")
    task = Task(dataset=path, text="text", label="label", concept="c", **change)
    assert labelled_rows(read_table(task), task)["label"].tolist() == expected


@pytest.mark.parametrize("change", [{}, {"positive_label": "1"}, {"threshold": 0.5}], ids=str)
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([[0], [1]] * 2, "label: row 0 .* holds a list, not a text"),
        ([["0"], ["1"]] * 2, "label: row 0 .* holds a list, not a text"),
        ([{"a": 0}, {"a": 1}] * 2, "label: row 0 .* holds an object"),
        (["0", b"1", "0", "1"], "label: row 1 .* holds bytes"),
        ([0, True, 0, 1], "label: row 1 .* holds a boolean, 'True', and row 0 a whole number"),
        ([0, 1, "1", 0], "label: row 2 .* holds a text"),
    ],
    ids=str,
)
def test_labels_of_other_kinds_are_refused_with_their_row(labels: list, change: dict, message: str):
    table = pd.DataFrame({"text": TEXTS, "label": pd.Series(labels, dtype=object)})
    task = Task(dataset="d.jsonl", text="text", label="label", concept="c", **change)
    with pytest.raises(DataError, match=message):
        labelled_rows(table, task)


def test_a_label_that_is_no_whole_number_is_refused_unless_it_is_cut():
    table = pd.DataFrame({"text": TEXTS, "label": [0.0, 0.5, 1.0, 0.0]})
    task = Task(dataset="d.jsonl", text="text", label="label", concept="c")
    with pytest.raises(DataError, match=r"label: row 1 .* holds a number.*'0.5'"):
        labelled_rows(table, task)
    rows = labelled_rows(table, task.model_copy(update={"threshold": 0.5}))
    assert rows["label"].tolist() == [0, 1, 1, 0]


def test_groups_may_be_dates_but_no_lists():
    task = Task(dataset="d.jsonl", text="text", label="label", concept="c", group="by")
    days = [datetime.date(2020, 1, 1 + i % 2) for i in range(4)]
    for by in (days, pd.to_datetime(days), ["2020-01-01", "2020-01-02"] * 2):
        rows = labelled_rows(pd.DataFrame({"text": TEXTS, "label": LABELS, "by": by}), task)
        assert rows["group"].nunique() == 2
    table = pd.DataFrame({"text": TEXTS, "label": LABELS, "by": [["a"], ["b"]] * 2})
    with pytest.raises(DataError, match=r"group: row 0 .* holds a list"):
        labelled_rows(table, task)


def test_a_text_that_cannot_be_written_is_named():
    table = pd.DataFrame({"text": ["a", "\ud83d"], "label": [0, 1]}, dtype=object)
    task = Task(dataset="d.jsonl", text="text", label="label", concept="c")
    with pytest.raises(DataError, match=r"text: row 1 .* cannot be written"):
        labelled_rows(table, task)
    with pytest.raises(UnicodeEncodeError):
        text_in({"a": "\ud83d"}, "a")


GOOD_ROWS = {
    "mmlu": {"question": "Q", "choices": ["a", "b"], "answer": 1},
    "mmlu_pro": {"question": "Q", "options": ["a", "b", "c"], "answer": "B"},
    "bbq_ambig": {
        **{"context_condition": "ambig", "context": "C", "question": "Q"},
        **{"ans0": "a", "ans1": "b", "ans2": "c", "label": 1},
    },
    "gsm8k": {"question": "Q", "answer": "x #### 3"},
    "simpleqa": {"problem": "P", "answer": "a"},
    "harmbench": {"prompt": "P", "context": "C"},
    "xstest": {"prompt": "P", "label": "safe"},
    "praise": {"prompt": "P"},
}
NO_VALUES = [["a"], {"a": 1}, 2.5, True, b"a"]


@pytest.mark.parametrize(
    ("task", "column"), [(task, column) for task, row in GOOD_ROWS.items() for column in row]
)
def test_tasks_of_corrsteer_take_texts_and_whole_numbers_alone(tmp_path: Path, task, column):
    entry = CorrSteerTask(task=task, dataset=str(tmp_path / "d.jsonl"))
    table = pd.DataFrame([GOOD_ROWS[task]])
    table.to_json(entry.dataset, orient="records", lines=True)
    items, _ = fetch_items(entry, published_prompt=False)
    assert len(items) == 1
    for value in NO_VALUES[:-1]:  # JSON has no bytes
        if isinstance(GOOD_ROWS[task][column], list) and isinstance(value, list):
            value = [1, 2]
        table = pd.DataFrame([{**GOOD_ROWS[task], column: value}], dtype=object)
        table.to_json(entry.dataset, orient="records", lines=True)
        with pytest.raises(DataError, match=rf"task {task} cannot read .*:0 \(TypeError: .*not a"):
            fetch_items(entry, published_prompt=False)


def test_csv_rows_of_corrsteer_keep_their_zeros_and_case(tmp_path: Path):
    path = tmp_path / "d.csv"
    path.write_text("problem,answer\n007,TRUE\n008,1.50\n")
    items, _ = fetch_items(
        CorrSteerTask(task="simpleqa", dataset=str(path)), published_prompt=False
    )
    assert items["gold"].tolist() == ["TRUE", "1.50"]
    assert items["prompt"].str.extract(r"Q: (.*)\n")[0].tolist() == ["007", "008"]
    path.write_text("problem,answer\nWho, me?,you\n")
    with pytest.raises(DataError, match="line 2 has 3 fields"):
        fetch_items(CorrSteerTask(task="simpleqa", dataset=str(path)), published_prompt=False)


def test_cells():
    assert whole_number_in({"a": 2.0}, "a") == whole_number_in({"a": " 2"}, "a") == 2
    assert whole_number_in({"a": np.int8(2)}, "a") == 2
    with pytest.raises(ValueError, match="invalid literal"):
        whole_number_in({"a": "two"}, "a")
    assert texts_in(np.array(["a", "b"], dtype=object), "choices") == ["a", "b"]
    for value in NO_VALUES:
        with pytest.raises(TypeError):
            text_in({"a": value}, "a")
        with pytest.raises(TypeError):
            texts_in([value], "choices")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("The movie was", "the  MOVIE\twas\n"),
        ("e\u0301", "\u00e9"),
        ("ｗｉｄｅ", "wide"),
        ("Straße", "STRASSE"),
        ("a\u00a0b", "a b"),
    ],
)
def test_the_same(one: str, other: str):
    assert normal_form(one) == normal_form(other)


@pytest.mark.parametrize(("one", "other"), [("a b", "ab"), ("a.", "a"), ("1", "2"), ("é", "e")])
def test_not_the_same(one: str, other: str):
    assert normal_form(one) != normal_form(other)


@given(st.lists(st.tuples(st.sampled_from("xyz"), st.sampled_from(["a", "A ", "b", "c", " "]))))
def test_groups_are_the_connected_parts(rows: list[tuple[str, str]]):
    table = pd.DataFrame(rows, columns=["group", "text"], dtype=object)
    found = joined_groups(table["group"], table["text"]).tolist()
    # The same by joining two groups at a time until nothing changes.
    want = table["group"].tolist()
    for _ in rows:
        for i, (_, text) in enumerate(rows):
            for j, (_, other) in enumerate(rows):
                if text.strip() and normal_form(text) == normal_form(other):
                    first, second = sorted((want[i], want[j]), key=want.index)
                    want = [first if group == second else group for group in want]
    assert found == want
