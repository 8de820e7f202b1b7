"""Digests of files and values; seals, with which the next stage detects damage; files made once.

Page checksums of Parquet do not cover its headers, and JSON, CSV and safetensors have none. So each
output gets a seal: a hidden file ``.{name}.sha256`` beside the file or directory ``name``.

A long job makes files one after the other, and its next run takes them up (:func:`make_once`), so a
killed job loses one. Snakemake removes the outputs of a job that was killed, and makes all outputs
of a job again if one of its parameters changes. So these files are no outputs. Each is sealed, and
a hidden record beside it tells what it was made from. As long as both hold, it is not made again.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from steering_core.errors import StorageError
from steering_core.storage.files import check_claim, claimed, write_text

log = logging.getLogger(__name__)

#: Snakemake puts this into a directory after the job has ended.
_WORKFLOW_MARK = ".snakemake_timestamp"


def seal_of(path: str | Path) -> Path:
    """Return the path of the seal of ``path``."""
    path = Path(path)
    return path.with_name(f".{path.name}.sha256")


def content_digest(path: str | Path) -> str:
    """Return the SHA-256 of a file, or of the names and contents of a directory's files."""
    path = Path(path)
    if not path.is_dir():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")):
        if file.is_file() and file.name != _WORKFLOW_MARK:
            digest.update(file.relative_to(path).as_posix().encode() + b"\0")
            digest.update(bytes.fromhex(content_digest(file)))
    return digest.hexdigest()


def named_digest(path: str | Path) -> str:
    """Return :func:`content_digest` with its kind in front: the revision of a local source."""
    return "sha256:" + content_digest(path)


def json_digest(value: Mapping[str, Any]) -> str:
    """Return the SHA-256 of ``value`` as JSON with sorted keys. NaN is an error."""
    canonical = json.dumps(value, sort_keys=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def seal(path: str | Path) -> None:
    """Write the seal of ``path``.

    Raises:
        OSError: if ``path`` cannot be read or the seal cannot be written.
        StorageError: if this process claimed ``path`` and a newer job has claimed it since.
    """
    digest = content_digest(path)
    check_claim(path)
    write_text(seal_of(path), digest + "\n")


def check_seal(path: str | Path) -> bool:
    """Compare ``path`` with its seal and return whether it has one.

    Files from elsewhere, such as the user's own dataset, have none.

    Raises:
        StorageError: if the two differ or ``path`` is missing.
    """
    seal_file = seal_of(path)
    if not seal_file.is_file():
        return False
    if not Path(path).exists():
        raise StorageError(f"{path} does not exist: run the stage that writes it.")
    if content_digest(path) != seal_file.read_text(encoding="ascii", errors="replace").strip():
        raise StorageError(
            f"{path} is not what its stage wrote: its digest differs from {seal_file.name}. The "
            "file is damaged or was edited. Delete it and run the same command again. (If you "
            "changed it on purpose, delete the digest.)"
        )
    return True


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
