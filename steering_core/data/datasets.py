"""Read a labelled table from the hub or a local file, as a task describes it."""

import hashlib
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
from huggingface_hub import HfApi

from steering_core.config.schema import Task
from steering_core.errors import DataError
from steering_core.models.hub import explain_hub_errors

_LOCAL = {".parquet": pd.read_parquet, ".csv": pd.read_csv}


def read_table(task: Task) -> pd.DataFrame:
    """Return the dataset of ``task`` as it is.

    Raises:
        DataError: if a local file has an unknown form.
        ModelError: if the hub refuses, with what to do.

    """
    suffix = Path(task.dataset).suffix
    if is_file(task.dataset):
        if not Path(task.dataset).is_file():
            raise DataError(f"dataset: there is no file {task.dataset}")
        if suffix == ".jsonl":
            return pd.read_json(task.dataset, lines=True)
        return _LOCAL[suffix](task.dataset)
    with explain_hub_errors(task.dataset):
        try:
            loaded = datasets.load_dataset(
                task.dataset, task.subset, split=task.split, revision=task.revision
            )
        except ValueError as error:  # unknown subset or split; the message lists the known ones
            raise DataError(f"dataset {task.dataset}: {error}") from error
    return loaded.to_pandas()


def fetch_table(task: Task) -> tuple[pd.DataFrame, dict[str, str]]:
    """Return the columns that ``task`` names and where they come from, and check that they serve.

    Raises:
        DataError: as :func:`read_table` and :func:`labelled_rows`.
    """
    if is_file(task.dataset):
        revision = "sha256:" + hashlib.sha256(Path(task.dataset).read_bytes()).hexdigest()
        table = read_table(task)
    else:
        with explain_hub_errors(task.dataset):
            info = HfApi().dataset_info(task.dataset, revision=task.revision)
        revision = str(info.sha)
        table = read_table(task.model_copy(update={"revision": revision}))
    labelled_rows(table, task)
    return table[_columns(task)], {"id": task.dataset, "revision": revision}


def is_file(dataset: str) -> bool:
    """Whether ``dataset`` names a local file rather than a hub repository."""
    return Path(dataset).suffix in {*_LOCAL, ".jsonl"}


def labelled_rows(table: pd.DataFrame, task: Task) -> pd.DataFrame:
    """Return ``example_id, text, label, group`` with labels 0 and 1, in the table's order.

    Rows whose text is empty are left out. Without a group of their own, rows with the same text
    form one, so that a duplicate cannot fall on both sides of a split.

    Raises:
        DataError: if a column is missing, a label is missing, or there are not two classes.

    """
    rows = _pairs(table, task) if task.question else _flat(table, task)
    rows = rows[rows["text"].str.strip() != ""].reset_index(drop=True)
    rows["text"] = rows["text"].str.strip()
    classes = sorted(rows["label"].unique())
    if classes != [0, 1]:
        raise DataError(
            f"label: two classes, 0 and 1, are needed; {task.label or 'the pairs'} gives "
            f"{classes[:10]}. Set `threshold` to cut a score, or choose another column."
        )
    return rows


def _flat(table: pd.DataFrame, task: Task) -> pd.DataFrame:
    _require(table, _columns(task), task)
    label = table[task.label]
    if label.isna().any():
        row = int(np.flatnonzero(label.isna())[0])
        raise DataError(f"label: {int(label.isna().sum())} rows have none, the first is row {row}.")
    if task.threshold is not None:
        label = (pd.to_numeric(label) >= task.threshold).astype(np.int64)
    text = table[task.text].fillna("").astype(str)
    # Object labels such as True or "1" are refused by the class check above, not guessed at.
    return pd.DataFrame(
        {
            "example_id": [f"{task.split}:{row}" for row in range(len(table))],
            "text": text.to_numpy(),
            "label": label.to_numpy(),
            "group": (table[task.group].astype(str) if task.group else text.str.strip()).to_numpy(),
        }
    )


def _pairs(table: pd.DataFrame, task: Task) -> pd.DataFrame:
    _require(table, _columns(task), task)
    rows = []
    for index, row in enumerate(table[_columns(task)].itertuples(index=False)):
        question, best, wrong = row
        for label, name, answer in ((1, "positive", best), (0, "negative", wrong)):
            answer = answer if isinstance(answer, str) else next(iter(answer), "")
            text = f"{question} {answer}" if answer else ""
            rows.append((f"{task.split}:{index}:{name}", text, label, str(question)))
    return pd.DataFrame(rows, columns=["example_id", "text", "label", "group"])


def _columns(task: Task) -> list[str]:
    named = (task.question, task.positive, task.negative, task.text, task.label, task.group)
    return [column for column in named if column]


def _require(table: pd.DataFrame, columns: list[str], task: Task) -> None:
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise DataError(
            f"dataset {task.dataset} has no column {missing[0]!r}; it has {list(table.columns)}."
        )
