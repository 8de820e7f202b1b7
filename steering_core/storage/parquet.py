"""Write whole tables as Parquet; all stages use this function.

It has its own module so that stages without tables need not import pandas. Only the activation
cache and the features are written elsewhere, by row groups, because they grow while a stage runs.
"""

import hashlib
import json
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
        schema: columns in order, with their types. Other columns are left out. Without a schema
            the columns and types are those of ``rows``.

    Raises:
        pyarrow.ArrowException: if a value does not fit the type of its column.
        KeyError: if a column of the schema is missing.
        StorageError: if this process claimed ``path`` and a newer job has claimed it since.
    """
    if isinstance(rows, pd.DataFrame):
        rows = pa.Table.from_pandas(rows, schema=schema, preserve_index=False)
    if schema is not None:
        rows = rows.replace_schema_metadata(None)
    with atomic_path(path) as temporary:
        pq.write_table(rows, temporary, compression="zstd")


def table_digest(table: pa.Table) -> str:
    """Return the SHA-256 of the columns and values of a table, however it is stored.

    Raises:
        TypeError: if a value is none of JSON's.
    """
    digest = hashlib.sha256(json.dumps(table.column_names).encode())
    for batch in table.to_batches(max_chunksize=1024):  # few rows at a time are Python objects
        for row in batch.to_pylist():
            digest.update(json.dumps(row).encode() + b"\n")
    return digest.hexdigest()
