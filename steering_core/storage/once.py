"""Files that a long job makes one after the other, and that its next run takes up.

A job that makes the tables of many methods keeps each in a file (:func:`table_made_once`). So a
killed job loses one method, and a change that concerns one method makes that one again.

Snakemake removes the outputs of a job that was killed, and makes all outputs of a job again if one
of its parameters changes. A file made here is no output. It is sealed, and a hidden record beside
it tells what it was made from. As long as both hold, it is not made again.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from steering_core.errors import StorageError
from steering_core.storage.files import claimed, write_text
from steering_core.storage.integrity import check_seal, json_digest, seal
from steering_core.storage.parquet import write_parquet

log = logging.getLogger(__name__)


def record_of(path: str | Path) -> Path:
    """Return the path of the record of what ``path`` was made from."""
    path = Path(path)
    return path.with_name(f".{path.name}.made_from")


def make_once(path: str | Path, made_from: Mapping[str, Any], make: Callable[[Path], None]) -> bool:
    """Make ``path``, unless it is there, undamaged, and was made from the same.

    Args:
        path: of the file.
        made_from: everything that its content depends on, as JSON holds it.
        make: writes the file, atomically.

    Returns:
        Whether it was made now.

    Raises:
        StorageError: if a newer job makes the same file meanwhile.
    """
    path, record = Path(path), record_of(path)
    digest = json_digest(made_from)
    if _is_made(path, record, digest):
        log.info("%s is there, made from the same: kept", path)
        return False
    with claimed([path]):
        record.unlink(missing_ok=True)  # of another content, until this one is complete
        make(path)
        seal(path)
        write_text(record, digest + "\n")
    return True


def _is_made(path: Path, record: Path, digest: str) -> bool:
    if not record.is_file() or record.read_bytes().strip() != digest.encode():
        return False
    try:
        return check_seal(path)
    except StorageError as error:
        log.warning("%s It is made again.", error)
        return False


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
        schema: of the table, as :func:`steering_core.storage.parquet.write_parquet` takes it.

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
