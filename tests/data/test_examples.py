"""The two tables of texts: sampled, split, measured, and written in a fixed schema."""

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from steering_core.config.resolve import resolve
from steering_core.config.schema import Settings
from steering_core.config.task import Task
from steering_core.data.build import SPLITS, build_examples, build_prompts, prompts_among_rows
from steering_core.data.columns import normal_forms
from steering_core.data.concept import Concept, read_concept
from steering_core.data.examples import (
    CONCEPT_SPLITS,
    PROMPT_SPLITS,
    SCHEMA,
    read_examples,
    summary,
    write_examples,
)
from steering_core.data.labelled import fetch_labelled, labelled_rows
from steering_core.errors import ConfigError, DataError

ROOT = Path(__file__).resolve().parents[2]
TASK = Task(dataset="d.csv", text="text", label="label", concept="c")
CONCEPT = Concept(
    concept="warmth",
    prompts=["one opening", "two openings", "three"],
    validation_prompts=["another opening", "and one more"],
    contrast=[{"positive": f"warm {i}", "negative": f"cold {i}"} for i in range(3)],
    personas={"positive": "A warm one: ", "negative": "A cold one: "},
    queries=["what is here", "who is there"],
)
SMALL = Settings(n_prompts=3, n_validation_prompts=2, max_tokens=16)


def words(texts) -> list[int]:
    """A tokenizer of words, with BOS in front."""
    return [len(text.split()) + 1 for text in texts]


def table(n: int = 100, length: int = 3) -> pd.DataFrame:
    """``n`` rows of each class with distinct texts of ``length`` words."""
    texts = [" ".join([f"t{i}"] + ["word"] * (length - 1)) for i in range(2 * n)]
    return pd.DataFrame({"text": texts, "label": [i % 2 for i in range(2 * n)]})


def examples_of(data: pd.DataFrame, task: Task, concept: Concept, *rest):
    """Build the table of examples from the columns of a dataset."""
    questions = task.question is not None
    return build_examples(labelled_rows(data, task), concept, *rest, questions=questions)


def build(data: pd.DataFrame, settings: Settings = SMALL) -> pd.DataFrame:
    return examples_of(data, TASK, CONCEPT, settings, words)[0]


def prompts(settings: Settings = SMALL, concept: Concept = CONCEPT, **room) -> pd.DataFrame:
    return build_prompts(concept, settings, words, **room)


def labels(rows: pd.DataFrame, split: str) -> list:
    return rows.loc[rows["split"] == split, "label"].tolist()


def test_rows_and_columns():
    rows = build(table())
    assert list(rows.columns) == SCHEMA.names
    assert set(rows["split"]) == {*SPLITS, *CONCEPT_SPLITS}
    assert rows["example_id"].is_unique
    for split in SPLITS:
        assert labels(rows, split).count(0) == labels(rows, split).count(1) > 0
    assert labels(rows, "contrast") == [1, 0] * 3
    assert labels(rows, "persona") == [1, 0] * 2
    assert rows["label"].notna().all()
    assert not rows["truncated"].any()
    assert rows["n_tokens"].tolist() == words(rows["text"])


def test_concept_texts():
    rows = build(table())
    text = rows.set_index("example_id")["text"]
    assert text["contrast:1:positive"] == "warm 1"
    assert text["contrast:1:negative"] == "cold 1"
    assert text["persona:0:positive"] == "A warm one: what is here"
    assert text["persona:1:negative"] == "A cold one: who is there"


def test_the_prompts_have_a_table_of_their_own():
    rows = prompts(SMALL.model_copy(update={"n_prompts": 2}))
    assert list(rows.columns) == SCHEMA.names
    assert rows["example_id"].is_unique and rows["label"].isna().all()
    assert set(rows["split"]) == set(PROMPT_SPLITS)
    assert rows["n_tokens"].tolist() == words(rows["text"])
    assert rows.loc[rows["split"] == "prompt", "text"].tolist() == ["one opening", "two openings"]
    validation = rows[rows["split"] == "validation_prompt"]
    assert validation["text"].tolist() == ["another opening", "and one more"]
    none = prompts(SMALL.model_copy(update={"n_validation_prompts": 0}))
    assert set(none["split"]) == {"prompt"}


def test_other_prompts_leave_the_examples_alone_unless_they_are_rows():
    others = {"prompts": ["new", "T0  word WORD"], "validation_prompts": ["newer"]}
    changed = CONCEPT.model_copy(update=others)
    data = labelled_rows(table(), TASK)
    assert prompts_among_rows(data, CONCEPT, questions=False) == []
    assert prompts_among_rows(data, changed, questions=False) == ["T0  word WORD"]
    asked = data.assign(group=["new", *data["group"][1:]])
    assert prompts_among_rows(asked, changed, questions=False) == ["T0  word WORD"]
    assert prompts_among_rows(asked, changed, questions=True) == ["T0  word WORD", "new"]
    fewer = changed.model_copy(update={"prompts": ["new"]})
    assert examples_of(table(), TASK, fewer, SMALL, words)[0].equals(build(table()))
    assert not examples_of(table(), TASK, changed, SMALL, words)[0].equals(build(table()))


def test_no_group_is_in_two_splits_and_duplicates_stay_together():
    data = table()
    copies = data.head(60).assign(text=lambda frame: "  " + frame["text"])
    rows = build(pd.concat([data, copies], ignore_index=True))
    assert (rows.groupby("group")["split"].nunique() == 1).all()
    assert (rows.groupby("text")["split"].nunique() == 1).all()
    assert rows["text"].duplicated().any()


def test_questions_never_straddle(hub: str):
    raw = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    found = resolve(raw, "gpt2_truthful")
    data, _ = fetch_labelled(found.task)
    concept = read_concept(ROOT / found.task.concept)
    rows, _ = build_examples(data, concept, found.settings, words, questions=True)
    questions = rows[rows["split"].isin(SPLITS)]
    assert len(questions) == 1000  # 500 a class
    assert (questions.groupby("group")["split"].nunique() == 1).all()
    assert (questions.groupby("group")["label"].agg(lambda v: set(v) == {0, 1})).all()


def test_at_most_rows_per_class():
    rows = build(table(100), SMALL.model_copy(update={"rows_per_class": 40}))
    dataset = rows[rows["split"].isin(SPLITS)]
    assert dataset["label"].value_counts().to_dict() == {0: 40, 1: 40}


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path):
    written = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_examples(tmp_path / name, build(table(), SMALL.model_copy(update={"seed": seed})))
        written.append((tmp_path / name).read_bytes())
    assert written[0] == written[1] != written[2]


def with_long_rows(n: int = 6) -> pd.DataFrame:
    long = [" ".join([f"long{i}"] + ["word"] * 20) for i in range(n)]
    return pd.concat(
        [table(), pd.DataFrame({"text": long, "label": [i % 2 for i in range(n)]})],
        ignore_index=True,
    )


def test_long_texts_are_an_error_by_default():
    with pytest.raises(DataError, match=r"6 texts are longer than max_tokens 16.*has 22.*truncate"):
        build(with_long_rows())


def test_long_texts_can_be_cut(caplog: pytest.LogCaptureFixture):
    rows = build(with_long_rows(), SMALL.model_copy(update={"long_texts": "truncate"}))
    cut = rows[rows["truncated"]]
    assert len(cut) == 6
    assert (cut["n_tokens"] == 16).all()
    assert cut["text"].str.startswith("long").all()
    assert "cut at the end" in caplog.text
    assert summary(rows, {}, chat_template=False)["truncated"] == 6


def test_long_texts_can_be_dropped():
    short = SMALL.model_copy(update={"long_texts": "drop"})
    rows, dropped = examples_of(with_long_rows(), TASK, CONCEPT, short, words)
    assert dropped == {"too_long": 6}
    assert not rows["text"].str.startswith("long").any()
    assert not rows["truncated"].any()
    assert rows["n_tokens"].max() <= 16


def test_rows_that_are_texts_of_the_concept_are_left_out_and_counted(
    caplog: pytest.LogCaptureFixture,
):
    texts = [
        *("One  opening", "ANOTHER OPENING ", "What is here", "ｗａｒｍ 1", "cold 2"),
        *("a warm one:", "A cold one:\twho is there", "three", "three warm words"),
    ]
    copies = pd.DataFrame({"text": texts, "label": [i % 2 for i in range(len(texts))]})
    data = pd.concat([table(), copies], ignore_index=True)
    rows, dropped = examples_of(data, TASK, CONCEPT, SMALL, words)
    assert dropped == {
        **{"contrast": 2, "persona": 1, "persona_with_query": 1, "prompt": 2, "query": 1},
        "validation_prompt": 1,
    }
    assert "8 rows of the dataset are also texts of the concept and are left out" in caplog.text
    dataset = rows[rows["split"].isin(SPLITS)]
    seen, concept = (
        set(normal_forms(part["text"]))
        for part in (dataset, rows[rows["split"].isin(CONCEPT_SPLITS)])
    )
    assert not seen & concept
    assert (
        build(table())
        .drop(columns="n_tokens")
        .equals(build(data[data["text"] != "three warm words"]).drop(columns="n_tokens"))
    )


def test_questions_that_are_prompts_are_left_out():
    data = pd.DataFrame({"q": [f"Q{i}?" for i in range(80)], "yes": "yes", "no": "no"})
    data.loc[3, "q"] = "One opening"
    task = Task(dataset="d", question="q", positive="yes", negative="no", concept="c")
    rows, dropped = examples_of(data, task, CONCEPT, SMALL, words)
    assert dropped == {"prompt": 2}
    assert not rows["text"].str.startswith("One opening").any()


def test_a_class_that_is_all_texts_of_the_concept_is_refused():
    data = pd.DataFrame({"text": ["warm 0", "warm 1", "a", "b"], "label": [1, 1, 0, 0]})
    with pytest.raises(DataError, match="every row of a class is also a text of the concept"):
        build(data)


def test_rows_that_differ_in_case_or_spaces_alone_are_in_one_split():
    data = table()
    copies = data.head(60).assign(
        text=lambda frame: frame["text"].str.upper().str.replace(" ", "  ")
    )
    rows = build(pd.concat([data, copies], ignore_index=True))
    rows = rows[rows["split"].isin(SPLITS)]
    forms = pd.Series(normal_forms(rows["text"]), index=rows.index)
    assert forms.duplicated().any()
    assert (rows.groupby(forms)["split"].nunique() == 1).all()


def test_dropping_every_row_of_a_class_is_refused():
    data = table()
    data.loc[data["label"] == 1, "text"] += " word" * 20
    with pytest.raises(DataError, match="max_tokens: 16 drops every row of a class"):
        build(data, SMALL.model_copy(update={"long_texts": "drop"}))


def test_the_limit_counts_bos():
    # 15 words and BOS fit into 16, 16 words do not.
    build(table(length=15))
    with pytest.raises(DataError, match="has 17"):
        build(table(length=16))


def test_a_long_prompt_is_not_dropped_in_silence():
    concept = CONCEPT.model_copy(update={"prompts": ["word " * 30, "b", "c"]})
    with pytest.raises(DataError, match="prompt:0"):
        prompts(SMALL.model_copy(update={"long_texts": "drop"}), concept)


def test_more_prompts_than_are_written_is_refused():
    with pytest.raises(ConfigError, match="n_prompts: 4 are asked for, warmth has 3"):
        prompts(SMALL.model_copy(update={"n_prompts": 4}))
    with pytest.raises(
        ConfigError, match=r"n_validation_prompts: 3 are asked for, warmth has 2.*0"
    ):
        prompts(SMALL.model_copy(update={"n_validation_prompts": 3}))


def test_a_prompt_that_leaves_no_room_to_continue_it_is_named():
    concept = CONCEPT.model_copy(update={"validation_prompts": ["short", "word " * 9]})
    assert len(prompts(concept=concept, new_tokens=20, context=30))
    with pytest.raises(DataError, match=r"new_tokens: validation_prompt:1 has 10 tokens.*29.*20"):
        prompts(concept=concept, new_tokens=20, context=29)


def test_a_text_without_tokens_is_named_and_not_quoted_whole():
    empty = "\u200b" * 2**20
    concept = CONCEPT.model_copy(update={"prompts": ["one opening", empty, "three openings"]})

    def count(texts):
        return [0 if text == empty else n for text, n in zip(texts, words(texts), strict=True)]

    with pytest.raises(DataError, match="prompt:1 has no tokens") as caught:
        build_prompts(concept, SMALL, count)
    assert len(str(caught.value)) < 1000


def test_a_class_with_too_few_rows_is_refused():
    with pytest.raises(
        DataError, match=r"too few rows.*has \d+ rows of class 0 and \d+ of class 1"
    ):
        build(table(5))


def test_written_schema_and_round_trip(tmp_path: Path):
    texts = ["nul \x00", "\u202eleft", "👩‍👩‍👧", "x" * 2**20, "a\r\nb"]
    data = table()
    data.loc[data.index[: len(texts)], "text"] = texts
    rows = build(data)
    write_examples(tmp_path / "e.parquet", rows)
    schema = pq.read_schema(tmp_path / "e.parquet")
    assert schema.equals(SCHEMA, check_metadata=True)
    assert schema.field("label").type == pa.int8()
    assert [f.name for f in schema if f.nullable] == ["label"]
    found = read_examples(tmp_path / "e.parquet")
    for column in ("example_id", "text", "group", "split", "n_tokens", "truncated"):
        assert found[column].tolist() == rows[column].tolist()
    assert found["label"].isna().tolist() == rows["label"].isna().tolist()
    assert found["label"].dropna().tolist() == rows["label"].dropna().tolist()
    assert set(texts) <= set(found["text"])
    write_examples(tmp_path / "p.parquet", prompts())
    stored = pq.read_table(tmp_path / "p.parquet")
    assert stored.schema.equals(SCHEMA, check_metadata=True)
    assert stored["label"].null_count == len(stored) == 5


def test_reading_some_splits(tmp_path: Path):
    rows = build(table())
    write_examples(tmp_path / "e.parquet", rows)
    found = read_examples(tmp_path / "e.parquet", ["contrast", "test"])
    assert set(found["split"]) == {"contrast", "test"}
    want = rows.loc[rows["split"].isin(["contrast", "test"]), "example_id"]
    assert found["example_id"].tolist() == want.tolist()
    assert found.index.tolist() == list(range(len(found)))


def test_summary_counts_every_row():
    rows = build(table())
    found = summary(rows, {"too_long": 2}, chat_template=True)
    counts = found["rows"]
    assert sum(counts.values()) == len(rows)
    assert counts["contrast/0"] == 3
    assert found["dropped"] == {"too_long": 2}
    assert counts["train/0"] == counts["train/1"] == 50
