"""Whole tables as Parquet: all stages write them with :func:`write_parquet`.

It has its own module so that stages without tables need not import pandas. Only the activation
cache and the features are written elsewhere, by row groups, because they grow while a stage runs.

A job that makes the tables of many methods keeps each in a file (:func:`table_made_once`), so a
change that concerns one method makes that one again.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from steering_core.storage.files import atomic_path
from steering_core.storage.integrity import make_once


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


def table_made_once(
    folder: str | Path,
    method: str,
    made_from: Mapping[str, Any],
    make: Callable[[], pd.DataFrame],
    schema: pa.Schema | None = None,
) -> pa.Table:
    """Return the table of a method, with its name in the column ``method``.

    Args:
        folder: where it is kept, as ``{method}.parquet``.
        method: its name.
        made_from: everything that the table depends on, as JSON holds it.
        make: makes the table, if none of the same is kept.
        schema: of the table, as :func:`write_parquet` takes it.

    Raises:
        StorageError: if a newer job makes the same table meanwhile.
    """
    path = Path(folder) / f"{method}.parquet"
    make_once(path, made_from, lambda path: write_parquet(path, make(), schema))
    table = pq.read_table(path)
    if "method" not in table.column_names:
        table = table.append_column("method", pa.array([method] * len(table), pa.string()))
    return table


def one_below_the_other(tables: Iterable[pa.Table]) -> pa.Table:
    """Return one table of all; a column that one of them lacks is null in its rows."""
    whole = pa.concat_tables(tables, promote_options="permissive")
    return whole.replace_schema_metadata(None)
