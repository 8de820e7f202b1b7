"""The demo's task with a known cause of success: to finish a text with praise."""

from collections.abc import Mapping
from typing import Any

from steering_core.corrsteer.item import Item, Source, Task
from steering_core.corrsteer.success import Praise
from steering_core.data.columns import text_in
from steering_core.demo.vocabulary import PERSONAS


def read_praise(row: Mapping[str, Any]) -> Item:
    """Read a row of ``praise_task.parquet``; its ``sentiment`` is not looked at."""
    return Item(text_in(row, "prompt"), "praise", "superb .")


PRAISE = Task(
    "praise",
    Source("results/demo/praise_task.parquet", "train"),
    read_praise,
    Praise(),
    new_tokens=3,  # the first word of sentiment comes within them
    answers=("superb .", "terrible ."),
    personas=(f"{PERSONAS['positive']} ", f"{PERSONAS['negative']} "),
)
