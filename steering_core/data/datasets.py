"""Read a labelled table from the hub or a local file, as a task describes it."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from huggingface_hub import is_offline_mode

from steering_core.config.task import Task
from steering_core.data.columns import check_labels, texts_of
from steering_core.data.local_files import (
    READERS,
    csv_columns,
    is_file,
    numbers_from_text,
    read_file,
)
from steering_core.data.same_text import joined_groups
from steering_core.errors import DataError, ModelError
from steering_core.models.hub import HubUnavailableError, explain_hub_errors
from steering_core.models.revisions import hub_commit
from steering_core.storage.integrity import content_digest

#: What the values of a label column may be.
_LABELS = ("a text", "a whole number", "a boolean")


def read_table(task: Task) -> pd.DataFrame:
    """Return the dataset of ``task`` as it is; on the hub its revision must be a commit.

    Raises:
        DataError: if a local file is missing, damaged or of an unknown form.
        ModelError: if the hub refuses, with what to do.

    """
    table = read_rows(task.dataset, task.subset, task.split, task.revision)
    # A CSV file has texts alone. A label that is named as a text is compared as one.
    if task.label in table.columns and not isinstance(task.positive_label, str):
        folder = Path(task.dataset).is_dir()
        if csv_columns(task.dataset) if folder else Path(task.dataset).suffix == ".csv":
            table[task.label] = numbers_from_text(table[task.label])
    return table


def read_rows(dataset: str, subset: str | None, split: str, revision: str) -> pd.DataFrame:
    """Return the rows of one split, at a commit on the hub or as they are here.

    Args:
        dataset: id on the hub, or a local file or directory.
        subset: of the hub's or the directory's; None if it has one only.
        split: likewise; a file has none.
        revision: a commit of the hub; what is local has none.

    Raises:
        DataError, ModelError: as :func:`read_table`.
    """
    if is_file(dataset):
        _require_file(dataset)
        return read_file(dataset)
    if Path(dataset).is_file():
        raise DataError(f"dataset: {dataset} is none of {', '.join(sorted(READERS))}")
    # Takes most of a second to import, and stages after the fetch read a table that is there.
    import datasets

    with explain_hub_errors(dataset):
        try:
            local = Path(dataset).is_dir()
            as_texts: dict[str, Any] = {}
            if local and (columns := csv_columns(dataset)):
                features = datasets.Features({name: datasets.Value("string") for name in columns})
                # Else "007" would become 7, and "NA" a missing text.
                as_texts = {"features": features, "keep_default_na": False, "na_values": [""]}
            commit = None if local else revision
            builder = datasets.load_dataset_builder(dataset, subset, revision=commit, **as_texts)
            # Without an answer of the hub this is what was prepared last, whatever the revision.
            if not local and builder.hash != revision:
                raise _not_there(dataset, revision, f"rows of commit {builder.hash}")
            builder.download_and_prepare()
            return builder.as_dataset(split=split).to_pandas()
        except ValueError as error:
            if "in the cache" in str(error):  # likewise, and no such subset was prepared
                raise _not_there(dataset, revision, "other subsets") from error
            # unknown subset or split; the message lists the known ones
            raise DataError(
                f"dataset {dataset}: {error} Check the task's subset and split."
            ) from error


def fetch_table(task: Task) -> tuple[pd.DataFrame, dict[str, str]]:
    """Return the columns that ``task`` names and where they come from, and check that they serve.

    Raises:
        DataError: as :func:`read_table` and :func:`labelled_rows`.
    """
    revision = dataset_revision(task.dataset, task.revision)
    table = read_table(task.model_copy(update={"revision": revision}))
    labelled_rows(table, task)
    return table[_columns(task)], {"id": task.dataset, "revision": revision}


def dataset_revision(dataset: str, revision: str) -> str:
    """Return the commit of a dataset on the hub, or a digest of what is local.

    Raises:
        DataError: if a local file is missing.
        ModelError: if the hub refuses, with what to do.
    """
    if Path(dataset).is_dir():
        return "sha256:" + content_digest(dataset)
    if not is_file(dataset) and not Path(dataset).is_file():
        return hub_commit(dataset, revision, "dataset")
    _require_file(dataset)
    return "sha256:" + content_digest(dataset)


def _require_file(dataset: str) -> None:
    if not Path(dataset).is_file():
        raise DataError(f"dataset: there is no file {dataset}")


def _not_there(dataset: str, revision: str, cached: str) -> ModelError:
    """Return the error about rows that only the hub has, which online is worth another attempt."""
    lacks = f"the local cache holds {cached}, not what is asked for of commit {revision}"
    if is_offline_mode():
        return ModelError(
            f"{dataset}: {lacks}: run the fetch rule where there is a network, with the same "
            "HF_HOME."
        )
    return HubUnavailableError(f"{dataset}: the hub does not give the rows, and {lacks}.")


def labelled_rows(table: pd.DataFrame, task: Task) -> pd.DataFrame:
    """Return ``example_id, text, label, group`` with labels 0 and 1, in the table's order.

    Rows whose text is empty are left out. Rows with the same text
    (:func:`steering_core.data.same_text.normal_form`) are of one group, whatever groups the table
    has, so that a duplicate cannot fall on both sides of a split: groups that share a text become
    one, named after the first of them.

    Raises:
        DataError: if a column, a label or a group is missing, a text is no text, a label is no
            text, whole number or boolean, or there are not two classes.

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
    """1 where the score reaches the threshold."""
    try:
        scores = pd.to_numeric(label.astype(object))
    except (ValueError, TypeError) as error:
        raise DataError(f"label: {task.label} is no score to cut: {error}") from error
    if scores.isna().any():  # the text "nan"
        raise DataError(f"label: {task.label} is no score to cut: row {scores.isna().argmax()}")
    return (scores >= task.threshold).astype(np.int64)


def _named_classes(label: pd.Series, task: Task) -> pd.Series:
    """1 where ``label`` is the value that the task calls positive, 0 where it is the other one."""
    values = sorted(label.unique().tolist())
    # A 1 of one file is the text "1" of another: they are written alike.
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
    """The first of a list, which comes from Parquet as an array; missing if it is empty."""
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
            + separated * is_file(task.dataset)
        )
