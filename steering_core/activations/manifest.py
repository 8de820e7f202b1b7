"""The manifest of an activation cache: it joins the parts without copying them."""

import errno
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from steering_core.errors import StorageError
from steering_core.runtime.machine import changed_versions, running_versions
from steering_core.storage.files import write_json
from steering_core.storage.integrity import content_digest, named_digest

log = logging.getLogger(__name__)

#: Errors that pyarrow and json raise on a damaged Parquet file; which one depends on the place of
#: the damage. After a flipped bit in the footer, a column may lack its type (AttributeError) or the
#: file its metadata (TypeError).
_DAMAGE = (pa.ArrowException, OSError, ValueError, KeyError, TypeError, AttributeError)
#: Numbers of an OSError that is about the file system or the process, and not about the file.
_NO_DAMAGE = {
    *(errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT),
    *(errno.ENOMEM, errno.EMFILE, errno.ENFILE),
}


@contextmanager
def damage_of(path: str | Path, advice: str = "delete it, run again.") -> Iterator[None]:
    """Turn every error of a damaged file inside the block into one :class:`StorageError`.

    Permission and file-system errors are not damage: they pass unchanged.

    Raises:
        StorageError: naming ``path``, with ``advice``.
    """
    try:
        yield
    except MemoryError:  # pyarrow's is an ArrowException too, and no damage
        raise
    except _DAMAGE as error:
        if getattr(error, "errno", None) in _NO_DAMAGE:
            raise
        raise StorageError(f"{path} is damaged or missing ({error}): {advice}") from error


def origin(
    resources: dict[str, Any],
    examples: str | Path | None = None,
    max_tokens: int | None = None,
    positions: str | None = None,
) -> dict[str, Any]:
    """Return the model, SAEs and texts that a cache belongs to, and the library versions of today.

    Args:
        resources: content of resources.json, which the fetch stage wrote.
        examples: the file of texts, with the number of tokens of each.
        max_tokens: the length to which texts are cut.
        positions: which tokens of a text are kept, ``last`` or ``all``.

    """
    made_from = {
        "model": resources["model"],
        "sites": resources["saes"],
        "sae_revision": resources["sae_revision"],
        "versions": running_versions(),
    }
    if "dataset" in resources:
        made_from["dataset"] = resources["dataset"]
    if examples is not None:
        made_from["examples"] = named_digest(examples)
    if max_tokens is not None:
        made_from["max_tokens"] = max_tokens
    if positions is not None:
        made_from["positions"] = positions
    return made_from


def expected_rows(examples: str | Path, positions: str) -> int:
    """Return how many rows a cache of the file ``examples`` has with ``last`` or ``all`` tokens."""
    if positions == "all":
        return pc.sum(pq.read_table(examples, columns=["n_tokens"])["n_tokens"]).as_py()
    return pq.read_metadata(examples).num_rows


def check_origin(found: dict[str, Any], expected: dict[str, Any], path: str | Path) -> None:
    """Compare the origin in the file ``path`` with the experiment's :func:`origin`.

    A different library version is only a warning, since it may change the last digits.

    Raises:
        StorageError: naming the first value that differs: a model revision, an SAE, the texts.

    """
    difference = _difference(found, {**expected, "versions": found.get("versions")}, "")
    changed = changed_versions(found.get("versions") or {})
    if changed:
        log.warning("%s was made with %s: last digits may differ.", path, changed)
    if difference is not None:
        raise StorageError(
            f"{path} was made from something else: {difference}. Delete it and run again."
        )


def _difference(found: Any, expected: Any, where: str) -> str | None:
    if isinstance(expected, dict) and isinstance(found, dict):
        pairs = [(key, found.get(key), expected[key]) for key in sorted(expected)]
    elif isinstance(expected, list) and isinstance(found, list) and len(found) == len(expected):
        pairs = [(i, *pair) for i, pair in enumerate(zip(found, expected, strict=True))]
    else:
        return None if found == expected else f"{where} is {found!r}, {expected!r} is expected"
    results = (_difference(f, e, f"{where}.{key}".lstrip(".")) for key, f, e in pairs)
    return next((result for result in results if result is not None), None)


def write_manifest(
    parts: Sequence[str | Path],
    path: str | Path,
    expected_rows: int,
    expected: dict[str, Any] | None = None,
) -> None:
    """Check the parts against each other and the :func:`origin` expected; write ``path`` there.

    Raises:
        StorageError: if parts come from different models, SAEs, dtypes, versions or texts, or if
            rows are missing or twice there.

    """
    entries, shared = [], None
    rows: list[pa.Table] = []
    for part in map(Path, parts):
        metadata, keys = _read(part)
        if shared is not None and metadata != shared:
            raise _mixed(part, metadata, shared)
        if expected is not None:
            check_origin(metadata, expected, part)
        shared = metadata
        rows.append(keys)
        entries.append({"file": part.name, "rows": len(keys), "sha256": content_digest(part)})
    for end, part in enumerate(parts, 1) if _repeat(rows) else ():
        if _repeat(rows[:end]):
            raise StorageError(f"{part} has rows that are there twice: delete the cache.")
    n = sum(map(len, rows))
    if n != expected_rows:
        raise StorageError(f"the cache has {n} rows, {expected_rows} were expected.")
    write_json(path, {"parts": entries, "rows": n, **(shared or {})})


def _repeat(rows: list[pa.Table]) -> bool:
    """Return True if an (example, position) occurs twice. Arrays, since there may be millions."""
    whole = pa.concat_tables(rows) if rows else pa.table({"example_id": [], "position": []})
    return len(whole.group_by(whole.column_names).aggregate([])) < len(whole)


def _mixed(part: Path, metadata: dict[str, Any], shared: dict[str, Any]) -> StorageError:
    """Return the error for a part that does not match the parts before it."""
    keys = sorted(k for k in shared.keys() | metadata.keys() if shared.get(k) != metadata.get(k))
    if keys == ["versions"]:
        now = running_versions()
        return StorageError(
            f"{part} and the other parts were made with different libraries: "
            f"{_difference(metadata['versions'], shared['versions'], '')} by the others. Delete "
            f"the parts of versions other than {now}, and run again."
        )
    return StorageError(f"{part} differs from the other parts in {keys}: delete it.")


def _read(part: Path) -> tuple[dict[str, Any], pa.Table]:
    """Return the metadata of a part and the (example, position) of its rows."""
    with damage_of(part), pq.ParquetFile(part, page_checksum_verification=True) as file:
        metadata = json.loads(file.schema_arrow.metadata[b"steering_core"])
        return metadata, file.read(["example_id", "position"]).replace_schema_metadata(None)
