"""The manifest that makes the parts of a cache one cache, without copying."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from steering_core.errors import StorageError
from steering_core.storage.atomic import write_json


def write_manifest(parts: Sequence[str | Path], path: str | Path, expected_rows: int) -> None:
    """Check the parts against each other and write ``path`` beside them.

    Raises:
        StorageError: if parts come from different models, SAEs, dtypes or versions, or if rows
            are missing or twice there.

    """
    entries, shared = [], None
    seen: set[str] = set()
    rows = 0
    for part in map(Path, parts):
        file = _open(part)
        metadata = json.loads(file.schema_arrow.metadata[b"steering_core"])
        if shared is not None and metadata != shared:
            differing = sorted(
                k for k in shared.keys() | metadata.keys() if shared.get(k) != metadata.get(k)
            )
            raise StorageError(f"{part} differs from the other parts in {differing}: delete it.")
        shared = metadata
        table = file.read(columns=["example_id", "position"])
        keys = {f"{a}\0{b}" for a, b in zip(*(c.to_pylist() for c in table.columns), strict=True)}
        if seen & keys:
            raise StorageError(f"{part} repeats rows of another part: delete the cache.")
        seen |= keys
        rows += file.metadata.num_rows
        entries.append(
            {"file": part.name, "rows": file.metadata.num_rows, "sha256": digest_of(part)}
        )
    if rows != expected_rows:
        raise StorageError(f"the cache has {rows} rows, {expected_rows} were expected.")
    write_json(path, {"parts": entries, "rows": rows, **(shared or {})})


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _open(part: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(part, page_checksum_verification=True)
    except (pa.ArrowInvalid, FileNotFoundError) as error:
        raise StorageError(
            f"{part} is damaged or missing ({error}): delete it, run again."
        ) from error
