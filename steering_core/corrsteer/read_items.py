"""The rows of a task's dataset as items, with the splits they come from."""

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from steering_core.corrsteer.tasks import Item, Source, Task, find_task, follows
from steering_core.data.sources import dataset_revision, is_file, read_rows
from steering_core.errors import DataError

if TYPE_CHECKING:
    from steering_core.config.corrsteer_schema import CorrSteerTask

COLUMNS = ["item_id", "source_split", "prompt", "gold", "worked", "letters"]


def fetch_items(
    entry: "CorrSteerTask", *, published_prompt: bool
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Read all rows of a task; return the items and the dataset's ``{id, revision}``.

    Columns: :data:`COLUMNS`; ``item_id`` is ``subset/split:row`` in the dataset's own numbering.

    Raises:
        DataError: if a row lacks what the task reads, or no row is of this task.
        ModelError: if the hub refuses, with what to do.
    """
    task = find_task(entry.task)
    source = source_of(entry, task)
    read = task.read
    if follows("published_prompt", task, asked=published_prompt):
        read = task.published_read
    revision = dataset_revision(source.dataset, entry.revision)
    splits = ("",) if is_file(source.dataset) else source.splits
    rows = []
    for subset in source.subsets or (None,):
        for split in splits:
            table = read_rows(source.dataset, subset, split, revision)
            where = f"{subset}/{split or source.train}" if subset else split or source.train
            rows += _items(table, read, where, split or source.train, task.name)
    if not rows:
        raise DataError(f"{source.dataset} has no row of task {task.name}.")
    return pd.DataFrame(rows, columns=COLUMNS), {"id": source.dataset, "revision": revision}


def source_of(entry: "CorrSteerTask", task: Task) -> Source:
    """Return the task's source with the changes of the configuration.

    A local file has one split, so its rows are split here.
    """
    source = task.source
    subsets = source.subsets if entry.subsets is None else tuple(entry.subsets)
    dataset = entry.dataset or source.dataset
    if is_file(dataset):
        return Source(dataset, source.train)
    return Source(dataset, source.train, source.validation, source.test, subsets)


def configured_task(entry: "CorrSteerTask") -> Task:
    """Return the task of ``entry`` with the source that the configuration sets."""
    task = find_task(entry.task)
    return replace(task, source=source_of(entry, task))


class _Row(dict):
    """A row that refuses to give a missing value, which would be "nan" in a prompt."""

    def __getitem__(self, column: str) -> Any:
        value = super().__getitem__(column)
        if value is None or (isinstance(value, float) and math.isnan(value)):
            raise ValueError(f"{column} has no value")
        return value


def _items(table: pd.DataFrame, read: Any, where: str, split: str, task: str) -> list[tuple]:
    rows = []
    for index, row in enumerate(table.to_dict("records")):
        try:
            item: Item | None = read(_Row(row))
            if item is not None and not isinstance(item.gold, str):
                raise TypeError(f"the right answer is {item.gold!r}, not a text")
        except (LookupError, ValueError, TypeError, AttributeError, OverflowError) as error:
            raise DataError(
                f"task {task} cannot read {where}:{index} ({type(error).__name__}: {error}); it "
                f"has the columns {list(table.columns)}."
            ) from error
        if item is not None:
            rows.append(
                (
                    f"{where}:{index}",
                    split,
                    item.prompt,
                    item.gold,
                    item.worked,
                    list(item.letters),
                )
            )
    return rows
