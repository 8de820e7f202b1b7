"""Tables as Parquet: the one place that writes a whole one.

It stands apart from the other files so that a stage without tables need not wait for pandas. What
grows while a model runs (the activation cache) is written by row groups where it is made.
"""

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from steering_core.storage.files import atomic_path


def write_parquet(
    path: str | Path, rows: pd.DataFrame | pa.Table, schema: pa.Schema | None = None
) -> None:
    """Write a table to ``path``, atomically and byte-reproducibly, without its index.

    Args:
        path: the file.
        rows: the table.
        schema: columns, in their order, and their types. Columns that it does not name are left
            out. Without one, types are those of ``rows``.

    Raises:
        pyarrow.ArrowException: if a value does not fit the type of its column.
        KeyError: if a column of the schema is missing.
        StorageError: if the process claimed ``path`` and a newer job did so since.
    """
    if isinstance(rows, pd.DataFrame):
        rows = pa.Table.from_pandas(rows, schema=schema, preserve_index=False)
    if schema is not None:
        rows = rows.replace_schema_metadata(None)
    with atomic_path(path) as temporary:
        pq.write_table(rows, temporary, compression="zstd")
