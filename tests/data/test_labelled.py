"""Labelled rows from local files and from the hub's real datasets, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from steering_core.config.resolve import resolve
from steering_core.config.task import Task
from steering_core.data.labelled import fetch_labelled, labelled_rows, read_table
from steering_core.errors import DataError, ModelError

ROOT = Path(__file__).resolve().parents[2]
FLAT = Task(dataset="d.csv", text="text", label="label", concept="c")
PAIRS = Task(dataset="d.csv", question="q", positive="best", negative="wrong", concept="c")


def flat(texts: list, labels: list, **change) -> pd.DataFrame:
    table = pd.DataFrame({"text": texts, "label": labels, "by": list("xyzw")[: len(texts)]})
    return labelled_rows(table, FLAT.model_copy(update=change))


def published(name: str) -> Task:
    raw = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    return resolve(raw, name).task


def test_rows_ids_and_groups():
    rows = flat([" a ", "b", "a"], [0, 1, 1], split="validation")
    assert rows.to_dict("list") == {
        "example_id": ["validation:0", "validation:1", "validation:2"],
        "text": ["a", "b", "a"],
        "label": [0, 1, 1],
        "group": ["a", "b", "a"],  # the same text is one group, whatever its label
    }


def test_empty_texts_are_left_out_and_keep_the_ids_of_the_others():
    table = pd.DataFrame({"text": ["", "b", None, " \n\t", "d"], "label": [0, 1, 0, 1, 0]})
    assert labelled_rows(table, FLAT)["example_id"].tolist() == ["train:1", "train:4"]


def test_a_group_column_is_used():
    assert flat(["a", "b"], [0, 1], group="by")["group"].tolist() == ["x", "y"]


def test_groups_that_share_a_text_are_one_and_blank_texts_join_none():
    table = pd.DataFrame(
        {
            "text": ["a", "b ", "b", "c", "", "", "c", "d"],
            "label": [0, 1, 0, 1, 0, 1, 0, 1],
            "by": [*"xxyyuvz", "w"],
        }
    )
    rows = labelled_rows(table, FLAT.model_copy(update={"group": "by"}))
    assert rows["group"].tolist() == ["x", "x", "x", "x", "x", "w"]


@pytest.mark.parametrize(
    ("labels", "positive", "expected"),
    [
        (["neg", "pos", "neg"], "pos", [0, 1, 0]),
        ([1, 2, 1], 2, [0, 1, 0]),
        ([1.0, 2.0, 1.0], 1, [1, 0, 1]),
        (["1", "2", "2"], 2, [0, 1, 1]),
    ],
)
def test_a_positive_label_names_class_1(labels: list, positive: str | int, expected: list):
    rows = flat(["a", "b", "c"], labels, positive_label=positive)
    assert rows["label"].tolist() == expected


@pytest.mark.parametrize(
    ("labels", "positive"), [(["neg", "pos", "so"], "pos"), (["neg", "pos", "neg"], "positive")]
)
def test_a_positive_label_that_does_not_fit_says_what_there_is(labels: list, positive: str):
    with pytest.raises(DataError, match=r"positive_label: two classes .* label has \['neg', 'pos'"):
        flat(["a", "b", "c"], labels, positive_label=positive)


def test_a_positive_label_and_a_threshold_exclude_each_other():
    with pytest.raises(ValueError, match="give threshold, for a score, or positive_label"):
        Task(**{**FLAT.model_dump(), "threshold": 0.5, "positive_label": "a"})


@pytest.mark.parametrize("labels", [[True, False], [1.0, 0.0], np.array([1, 0], dtype=np.int8)])
def test_labels_that_are_zero_and_one_become_integers(labels: list):
    rows = flat(["a", "b"], labels)
    assert rows["label"].tolist() == [1, 0]
    assert rows["label"].dtype == np.int64


@pytest.mark.parametrize(
    "labels",
    [
        [0, 0, 0],
        [1, 1, 1],
        [0, 1, 2],
        [-1, 0, 1],
        ["0", "1", "1"],
        ["neg", "pos", "pos"],
        [0, "a", 1],
        [0.0, 0.5, 1.0],
        [True, "no", None],
    ],
    ids=str,
)
def test_other_than_two_classes_is_refused(labels: list):
    with pytest.raises(DataError, match="label"):
        flat(["a", "b", "c"], labels)


def test_the_classes_found_are_named_readably():
    with pytest.raises(DataError, match=r"label gives \[0, 1, 2\]. Set `positive_label`"):
        flat(["a", "b", "c"], [0, 1, 2])


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_a_missing_label_is_refused_and_located(missing: float | None):
    with pytest.raises(DataError, match=r"label: 1 rows .* first is row 1 .*: fill them in"):
        flat(["a", "b", "c"], [0, missing, 1])
    with pytest.raises(DataError, match="label: 1 rows have none, the first is row 1"):
        flat(["a", "b", "c"], [0, missing, 1], threshold=0.5)


def test_a_missing_group_is_refused_and_located():
    table = pd.DataFrame({"text": ["a", "b"], "label": [0, 1], "by": ["x", None]})
    with pytest.raises(DataError, match=r"group: 1 rows .* first is row 1 .*remove those rows"):
        labelled_rows(table, FLAT.model_copy(update={"group": "by"}))


@pytest.mark.parametrize("column", ["text", "label", "group"])
def test_a_missing_column_is_named_with_those_there_are(column: str):
    with pytest.raises(DataError, match=r"no column 'gone'; it has .*'text', 'label', 'by'"):
        flat(["a", "b"], [0, 1], **{column: "gone"})


def test_the_threshold_belongs_to_class_one():
    below = float(np.nextafter(0.5, 0))
    rows = flat(["a", "b", "c", "d"], [0.0, below, 0.5, 1.0], threshold=0.5)
    assert rows["label"].tolist() == [0, 0, 1, 1]


def test_a_threshold_on_words_is_refused():
    with pytest.raises(DataError, match="label: label is no score to cut"):
        flat(["a", "b"], ["good", "bad"], threshold=0.5)


def test_pairs():
    table = pd.DataFrame(
        {"q": ["Q1?", " Q2? "], "best": ["yes", "no"], "wrong": [["one", "two"], np.array(["z"])]}
    )
    rows = labelled_rows(table, PAIRS)
    assert rows["text"].tolist() == ["Q1? yes", "Q1? one", "Q2? no", "Q2? z"]
    assert rows["label"].tolist() == [1, 0, 1, 0]
    assert rows["group"].tolist() == ["Q1?", "Q1?", "Q2?", "Q2?"]
    assert rows["example_id"].is_unique


@pytest.mark.parametrize("absent", [None, float("nan"), "", " ", [], [None]], ids=str)
def test_a_pair_without_an_answer_loses_that_side_only(absent: object):
    table = pd.DataFrame({"q": ["Q?", "R?"], "best": ["a", absent], "wrong": ["b", "c"]})
    rows = labelled_rows(table, PAIRS)
    assert rows["text"].tolist() == ["Q? a", "Q? b", "R? c"]


def test_a_pair_without_a_question_is_left_out():
    table = pd.DataFrame({"q": ["Q?", None], "best": ["a", "x"], "wrong": ["b", "c"]})
    assert labelled_rows(table, PAIRS)["group"].tolist() == ["Q?", "Q?"]


HOSTILE = [
    "nul \x00 byte",
    "\u202eright to left\u202c",
    "👩‍👩‍👧‍👦 🏳️‍🌈",
    "e\u0301 vs é",
    "\ufeffbom",
    "a,b\n\"c\"\r\n'd'",
    "<script>alert(1)</script>",
    "x" * 2**20,
    "\u200b",
    "NA",
    "null",
    "007",
    "2020-01-01",
    "=1+1",
]


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "csv"])
def test_hostile_texts_are_read_as_they_are(tmp_path: Path, kind: str):
    table = pd.DataFrame({"text": HOSTILE, "label": [i % 2 for i in range(len(HOSTILE))]})
    path = tmp_path / f"d.{kind}"
    if kind == "parquet":
        table.to_parquet(path)
    elif kind == "csv":
        table.to_csv(path, index=False)
    else:
        path.write_text(
            "".join(json.dumps(row) + "\n" for row in table.to_dict("records")), encoding="utf-8"
        )
    task = FLAT.model_copy(update={"dataset": str(path)})
    rows = labelled_rows(read_table(task), task)
    want = [text.strip() for text in HOSTILE]
    if kind == "csv":  # the csv writer and reader agree on a newline, not on which
        want = [text.replace("\r\n", "\n") for text in want]
        rows["text"] = rows["text"].str.replace("\r\n", "\n")
    assert rows["text"].tolist() == want
    assert rows["label"].tolist() == table["label"].tolist()


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=8), min_size=2, max_size=10))
def test_any_text_is_kept_or_empty(texts: list[str]):
    table = pd.DataFrame({"text": texts, "label": [i % 2 for i in range(len(texts))]})
    filled = [text.strip() for text in texts if text.strip()]
    try:
        rows = labelled_rows(table, FLAT)
    except DataError:
        labels = {i % 2 for i, text in enumerate(texts) if text.strip()}
        assert labels != {0, 1}
        return
    assert rows["text"].tolist() == filled


def test_labels_of_jsonl_are_not_guessed_at(tmp_path: Path):
    path = tmp_path / "d.jsonl"
    path.write_text('{"text": "a", "label": "1"}\n{"text": "b", "label": "0"}\n')
    task = FLAT.model_copy(update={"dataset": str(path)})
    with pytest.raises(DataError, match=r"\['0', '1'\]"):
        labelled_rows(read_table(task), task)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("d.parquet", b"not parquet", "cannot be read"),
        ("d.csv", b"\xff\xfe\x00", "cannot be read"),
        ("d.csv", b"", "cannot be read"),
        ("d.csv", b'a,b\n1,2,3\n"', "cannot be read"),
        ("d.jsonl", b"{", "cannot be read"),
        ("d.tsv", b"a\tb\n", "none of .csv, .jsonl, .parquet"),
        ("d", b"a\tb\n", "none of .csv, .jsonl, .parquet"),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path: Path, name: str, content: bytes, message: str):
    (tmp_path / name).write_bytes(content)
    for read in (read_table, fetch_labelled):
        with pytest.raises(DataError, match=message):
            read(FLAT.model_copy(update={"dataset": str(tmp_path / name)}))


def test_a_file_that_is_not_there(tmp_path: Path):
    for read in (read_table, fetch_labelled):
        with pytest.raises(DataError, match="there is no file"):
            read(FLAT.model_copy(update={"dataset": str(tmp_path / "gone.csv")}))


def test_fetch_pins_a_local_file_by_its_content(tmp_path: Path):
    path = tmp_path / "d.csv"
    task = FLAT.model_copy(update={"dataset": str(path)})
    path.write_text("text,label,other\na,0,x\nb,1,y\n")
    rows, first = fetch_labelled(task)
    assert list(rows.columns) == ["example_id", "text", "label", "group"]
    path.write_text("text,label,other\na,0,x\nc,1,y\n")
    _, second = fetch_labelled(task)
    assert first["id"] == second["id"] == str(path)
    assert first["revision"].startswith("sha256:")
    assert first["revision"] != second["revision"]


def test_a_local_directory_has_splits_and_is_pinned_by_its_content(tmp_path: Path):
    for split, text in (("train", "a"), ("test", "b")):
        rows = pd.DataFrame({"text": [text, f"{text}{text}"], "label": [0, 1]})
        rows.to_parquet(tmp_path / f"{split}-00000-of-00001.parquet")
    task = FLAT.model_copy(update={"dataset": str(tmp_path), "split": "test"})
    table, found = fetch_labelled(task)
    assert table["text"].tolist() == ["b", "bb"]
    assert found["id"] == str(tmp_path) and found["revision"].startswith("sha256:")
    rows.assign(text=["b", "c"]).to_parquet(tmp_path / "test-00000-of-00001.parquet")
    table, other = fetch_labelled(task)
    assert table["text"].tolist() == ["b", "c"] and other["revision"] != found["revision"]
    with pytest.raises(DataError, match="Check the task's subset and split"):
        fetch_labelled(task.model_copy(update={"split": "validation"}))


def test_sst2_validation(hub: str):
    task = published("gpt2_sst2")
    rows, source = fetch_labelled(task)
    assert len(rows) == 872
    assert rows["label"].value_counts().to_dict() == {1: 444, 0: 428}
    assert len(source["revision"]) == 40
    assert (rows["text"] == rows["text"].str.strip()).all()


def test_toxicity_is_cut_at_a_half(hub: str):
    task = published("gpt2_toxicity")
    rows, source = fetch_labelled(task)
    table = read_table(task.model_copy(update={"revision": source["revision"]}))
    assert rows["label"].sum() == (table["toxicity"] >= 0.5).sum()
    assert (table["toxicity"] == 0.5).any()  # so that >= and > differ on real rows
    assert 0 < rows["label"].mean() < 1


def test_truthfulqa_pairs_share_their_question(hub: str):
    task = published("gemma_truthful")
    rows, source = fetch_labelled(task)
    table = read_table(task.model_copy(update={"revision": source["revision"]}))
    assert rows["label"].mean() == 0.5
    first = table.iloc[0]
    assert rows["text"][0] == f"{first['question']} {first['best_answer']}"
    assert rows["text"][1] == f"{first['question']} {first['incorrect_answers'][0]}"
    assert (rows.groupby("group")["label"].agg(set).map(len) == 2).all()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"split": "tset"}, DataError, "tset"),
        ({"dataset": "stanfordnlp/sst22"}, ModelError, "not on the hub"),
        ({"label": "lable"}, DataError, "no column 'lable'"),
    ],
    ids=str,
)
def test_what_the_hub_does_not_have(hub: str, change: dict, error: type, message: str):
    with pytest.raises(error, match=message):
        fetch_labelled(published("gpt2_sst2").model_copy(update=change))
