"""Turn the columns of a dataset into labelled rows, as a task describes it."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from steering_core.config.task import Task
from steering_core.data.columns import check_labels, joined_groups, texts_of
from steering_core.data.sources import (
    csv_columns,
    dataset_revision,
    is_file,
    numbers_from_text,
    read_rows,
)
from steering_core.errors import DataError

#: Kinds of values that a label column may have.
_LABELS = ("a text", "a whole number", "a boolean")


def fetch_labelled(task: Task) -> tuple[pd.DataFrame, dict[str, str]]:
    """Read the dataset of ``task``: ``(labelled rows, {id, revision})``.

    Raises:
        DataError: as :func:`read_table` and :func:`labelled_rows`.
        ModelError: if the hub refuses, with what to do.
    """
    revision = dataset_revision(task.dataset, task.revision)
    table = read_table(task.model_copy(update={"revision": revision}))
    return labelled_rows(table, task), {"id": task.dataset, "revision": revision}


def read_table(task: Task) -> pd.DataFrame:
    """Return the dataset of ``task`` with all its columns.

    On the hub, ``task.revision`` must be a commit.

    Raises:
        DataError, ModelError: as :func:`steering_core.data.sources.read_rows`.
    """
    table = read_rows(task.dataset, task.subset, task.split, task.revision)
    # All values of CSV files are texts. If positive_label is a text, labels are compared as texts.
    if task.label in table.columns and not isinstance(task.positive_label, str):
        folder = Path(task.dataset).is_dir()
        if csv_columns(task.dataset) if folder else Path(task.dataset).suffix == ".csv":
            table[task.label] = numbers_from_text(table[task.label])
    return table


def labelled_rows(table: pd.DataFrame, task: Task) -> pd.DataFrame:
    """Return ``example_id, text, label, group`` with labels 0 and 1, in the table's order.

    Rows with an empty text are left out. Groups that share a text in its normal form
    (:func:`steering_core.data.columns.normal_form`) become one group, so that a duplicate cannot
    fall on both sides of a split.

    Raises:
        DataError: if a column, a label or a group is missing, a value of a text column is not a
            text, a label is not a text, whole number or boolean, or there are not two classes.

    """
    _require(table, _columns(task), task)
    if table.empty:
        raise DataError(f"dataset {task.dataset} has no rows.")
    rows = _pairs(table, task) if task.question else _flat(table, task)
    rows["text"] = rows["text"].str.strip()
    rows["group"] = joined_groups(rows["group"], rows["text"])
    rows = rows[rows["text"] != ""].reset_index(drop=True)
    classes = sorted(rows["label"].unique().tolist(), key=lambda label: (str(type(label)), label))
    if classes != [0, 1]:
        raise DataError(
            f"label: two classes, 0 and 1, are needed; {task.label or 'the pairs'} gives "
            f"{classes[:10]}. Set `positive_label` to the value that is class 1, or `threshold` to "
            "cut a score, or choose another column."
        )
    rows["label"] = rows["label"].astype(np.int64)  # from True and 1.0 as well, not from "1"
    return rows


def _flat(table: pd.DataFrame, task: Task) -> pd.DataFrame:
    texts = texts_of(table[task.text], "text")
    label = table[task.label]
    check_labels(label, "label", _LABELS if task.threshold is None else (*_LABELS, "a number"))
    if task.threshold is not None:
        label = _cut(label, task)
    elif task.positive_label is not None:
        label = _named_classes(label, task)
    group = pd.Series(texts)
    if task.group:
        check_labels(table[task.group], "group", (*_LABELS, "a number", "a Timestamp", "a date"))
        group = table[task.group].astype(str)
    return pd.DataFrame(
        {
            "example_id": [f"{task.split}:{row}" for row in range(len(table))],
            "text": texts,
            "label": label.to_numpy(),
            "group": group.str.strip().to_numpy(),
        }
    )


def _cut(label: pd.Series, task: Task) -> pd.Series:
    """Return 1 where the score reaches the threshold, else 0."""
    try:
        scores = pd.to_numeric(label.astype(object))
    except (ValueError, TypeError) as error:
        raise DataError(
            f"label: {task.label} is no score to cut: {error}. `threshold` needs a number in every "
            "row; for classes, set `positive_label` instead."
        ) from error
    if scores.isna().any():  # the text "nan"
        raise DataError(
            f"label: {task.label} is no score to cut: row {scores.isna().argmax()} (counted from "
            "0) has no number. Fill it in, or remove the row."
        )
    return (scores >= task.threshold).astype(np.int64)


def _named_classes(label: pd.Series, task: Task) -> pd.Series:
    """Return 1 where ``label`` is the task's ``positive_label``, 0 where it is the other value."""
    values = sorted(label.unique().tolist())
    # One file has the number 1, another the text "1": compare them as texts too.
    positive = (label == task.positive_label) | (label.map(str) == str(task.positive_label))
    if len(values) != 2 or not positive.any():
        raise DataError(
            f"positive_label: two classes are needed, one of them {task.positive_label!r}; "
            f"{task.label} has {values[:10]}."
        )
    return positive.astype(np.int64)


def _pairs(table: pd.DataFrame, task: Task) -> pd.DataFrame:
    questions, best, wrong = (
        texts_of(table[column].map(_first), role)
        for column, role in (
            (task.question, "question"),
            (task.positive, "positive"),
            (task.negative, "negative"),
        )
    )
    rows = []
    for index, pair in enumerate(zip(questions, best, wrong, strict=True)):
        question, *answers = (text.strip() for text in pair)
        for label, name, answer in zip((1, 0), ("positive", "negative"), answers, strict=True):
            text = f"{question} {answer}" if question and answer else ""
            rows.append((f"{task.split}:{index}:{name}", text, label, question))
    found = pd.DataFrame(rows, columns=["example_id", "text", "label", "group"])
    found["group"] = joined_groups(found["group"], found["group"])
    return found


def _first(value: Any) -> Any:
    """Return the first item of a list or array, None if it is empty; another value as it is."""
    return next(iter(value), None) if isinstance(value, list | tuple | np.ndarray) else value


def _columns(task: Task) -> list[str]:
    named = (task.question, task.positive, task.negative, task.text, task.label, task.group)
    return [column for column in named if column]


def _require(table: pd.DataFrame, columns: list[str], task: Task) -> None:
    missing = [column for column in columns if column not in table.columns]
    if missing:
        separated = " Columns are separated by commas." if len(table.columns) == 1 else ""
        raise DataError(
            f"dataset {task.dataset} has no column {missing[0]!r}; it has {list(table.columns)}."
            + "".join(f" It has no column {name!r} either." for name in missing[1:])
            + separated * is_file(task.dataset)
        )
