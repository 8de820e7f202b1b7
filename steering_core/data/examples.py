"""The two tables of texts that an experiment reads: their schema, written and read.

The examples are rows and texts that something is fitted or measured on, the prompts are continued.
Other prompts leave every stage alone that reads examples only. How the tables are built is in
:mod:`steering_core.data.build`, so that by the code digest an edit there reruns the stages that
build them and not all that read them.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from steering_core.storage.parquet import write_parquet

SCHEMA = pa.schema(
    [
        pa.field("example_id", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("label", pa.int8()),  # null for prompts
        pa.field("group", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("n_tokens", pa.int32(), nullable=False),
        pa.field("truncated", pa.bool_(), nullable=False),
    ]
)

#: Splits of the concept texts among the examples, beside those of the dataset.
CONCEPT_SPLITS = ("contrast", "persona")

#: Splits of the prompts: reported, and for selecting a strength.
PROMPT_SPLITS = ("prompt", "validation_prompt")


def write_examples(path: str | Path, rows: pd.DataFrame) -> None:
    """Write ``rows`` as Parquet."""
    write_parquet(path, rows, SCHEMA)


def read_examples(path: str | Path, splits: Sequence[str] | None = None) -> pd.DataFrame:
    """Read the examples, or those of some splits, in file order."""
    rows = pd.read_parquet(path)
    return rows if splits is None else rows[rows["split"].isin(splits)].reset_index(drop=True)


def summary(
    rows: pd.DataFrame, dropped: Mapping[str, int], *, chat_template: bool
) -> dict[str, Any]:
    """Return counts for the manifest: rows per split and class, how many were cut or left out.

    Args:
        rows: the table of examples.
        dropped: how many rows of the dataset were left out, by reason.
        chat_template: whether the model reads each text as the user's turn of its chat template.
    """
    labels = rows["label"].astype("string").fillna("none")
    counts = Counter(zip(rows["split"], labels, strict=True))
    return {
        "rows": {f"{split}/{label}": n for (split, label), n in sorted(counts.items())},
        "truncated": int(rows["truncated"].sum()),
        "dropped": dict(dropped),
        "chat_template": chat_template,
    }
