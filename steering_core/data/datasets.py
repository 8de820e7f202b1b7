"""Read a labelled table from the hub or a local file, as a task describes it."""

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from huggingface_hub import is_offline_mode
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from steering_core.config.task import Task
from steering_core.errors import DataError, ModelError
from steering_core.models.hub import HubUnavailableError, explain_hub_errors
from steering_core.models.revisions import hub_commit
from steering_core.storage.seals import content_digest

# Texts stay as they are written: "NA" is a word and "007" no number.
_LOCAL: dict[str, Callable[[str], pd.DataFrame]] = {
    ".parquet": pd.read_parquet,
    ".csv": partial(pd.read_csv, keep_default_na=False, na_values=[""]),
    ".jsonl": partial(pd.read_json, lines=True, dtype=False),
}


def read_table(task: Task) -> pd.DataFrame:
    """Return the dataset of ``task`` as it is; on the hub its revision must be a commit.

    Raises:
        DataError: if a local file is missing, damaged or of an unknown form.
        ModelError: if the hub refuses, with what to do.

    """
    return read_rows(task.dataset, task.subset, task.split, task.revision)


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
        try:
            return _LOCAL[Path(dataset).suffix](dataset)
        except ValueError as error:  # of pandas, pyarrow and UTF-8 alike
            raise DataError(f"dataset: {dataset} cannot be read: {error}") from error
    if Path(dataset).is_file():
        raise DataError(f"dataset: {dataset} is none of {', '.join(sorted(_LOCAL))}")
    # Takes most of a second to import, and stages after the fetch read a table that is there.
    import datasets

    with explain_hub_errors(dataset):
        try:
            local = Path(dataset).is_dir()
            commit = None if local else revision
            builder = datasets.load_dataset_builder(dataset, subset, revision=commit)
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
    return "sha256:" + hashlib.sha256(Path(dataset).read_bytes()).hexdigest()


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


def is_file(dataset: str) -> bool:
    """Whether ``dataset`` names a local file rather than a directory or a hub repository."""
    return Path(dataset).suffix in _LOCAL


def labelled_rows(table: pd.DataFrame, task: Task) -> pd.DataFrame:
    """Return ``example_id, text, label, group`` with labels 0 and 1, in the table's order.

    Rows whose text is empty are left out. Rows with the same text are of one group, whatever
    groups the table has, so that a duplicate cannot fall on both sides of a split: groups that
    share a text become one, named after the first of them.

    Raises:
        DataError: if a column, a label or a group is missing, or there are not two classes.

    """
    rows = _pairs(table, task) if task.question else _flat(table, task)
    rows = rows[rows["text"].str.strip() != ""].reset_index(drop=True)
    rows["text"] = rows["text"].str.strip()
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
    _require(table, _columns(task), task)
    label = table[task.label]
    _require_values(label, "label")
    if task.threshold is not None:
        try:
            label = (pd.to_numeric(label) >= task.threshold).astype(np.int64)
        except (ValueError, TypeError) as error:
            raise DataError(f"label: {task.label} is no score to cut: {error}") from error
    elif task.positive_label is not None:
        label = _named_classes(label, task)
    if task.group:
        _require_values(table[task.group], "group")
    text = table[task.text].fillna("").astype(str)
    group = text.str.strip()
    if task.group:
        group = _joined(table[task.group].astype(str), group)
    return pd.DataFrame(
        {
            "example_id": [f"{task.split}:{row}" for row in range(len(table))],
            "text": text.to_numpy(),
            "label": label.to_numpy(),
            "group": group.to_numpy(),
        }
    )


def _named_classes(label: pd.Series, task: Task) -> pd.Series:
    """1 where ``label`` is the value that the task calls positive, 0 where it is the other one."""
    values = sorted(label.unique().tolist(), key=lambda value: (str(type(value)), value))
    # A 1 of one file is the text "1" of another: they are written alike.
    positive = (label == task.positive_label) | (label.map(str) == str(task.positive_label))
    if len(values) != 2 or not positive.any():
        raise DataError(
            f"positive_label: two classes are needed, one of them {task.positive_label!r}; "
            f"{task.label} has {values[:10]}."
        )
    return positive.astype(np.int64)


def _joined(group: pd.Series, text: pd.Series) -> pd.Series:
    """Return groups that no text is shared between; blank texts, which are left out, join none."""
    written = (text != "").to_numpy()
    groups, names = pd.factorize(group)
    texts, different = pd.factorize(text[written])
    n, ends = len(names), len(names) + len(different)
    links = coo_array((np.ones(len(texts)), (groups[written], n + texts)), shape=(ends, ends))
    _, part = connected_components(links, directed=False)
    _, first = np.unique(part[:n], return_index=True)
    name_of = dict(zip(part[first], names[first], strict=True))
    return pd.Series([name_of[part[g]] for g in groups], index=group.index)


def _pairs(table: pd.DataFrame, task: Task) -> pd.DataFrame:
    _require(table, _columns(task), task)
    rows = []
    for index, row in enumerate(table[_columns(task)].itertuples(index=False)):
        question, best, wrong = row
        question = _first(question)
        for label, name, answers in ((1, "positive", best), (0, "negative", wrong)):
            answer = _first(answers)
            text = f"{question} {answer}" if question and answer else ""
            rows.append((f"{task.split}:{index}:{name}", text, label, question))
    return pd.DataFrame(rows, columns=["example_id", "text", "label", "group"])


def _first(value: Any) -> str:
    """A text, or the first of a list of them; empty where there is none."""
    if not isinstance(value, str):
        # A missing value is None or NaN, a list comes from Parquet as an array.
        value = next(iter(value), "") if isinstance(value, list | tuple | np.ndarray) else ""
    return value.strip() if isinstance(value, str) else ""


def _require_values(column: pd.Series, what: str) -> None:
    missing = column.isna().to_numpy()
    if missing.any():
        first = int(missing.argmax())
        raise DataError(
            f"{what}: {int(missing.sum())} rows have none, the first is row {first} (counted from "
            "0): fill them in, or remove those rows."
        )


def _columns(task: Task) -> list[str]:
    named = (task.question, task.positive, task.negative, task.text, task.label, task.group)
    return [column for column in named if column]


def _require(table: pd.DataFrame, columns: list[str], task: Task) -> None:
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise DataError(
            f"dataset {task.dataset} has no column {missing[0]!r}; it has {list(table.columns)}."
        )
