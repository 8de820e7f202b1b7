"""Files that a long job makes one after the other, and that its next run takes up.

Snakemake removes the outputs of a job that was killed, and makes all outputs of a job again if one
of its parameters changes. A file made here is no output. It is sealed, and a hidden record beside
it tells what it was made from. As long as both hold, it is not made again.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from steering_core.errors import StorageError
from steering_core.storage.files import claimed, write_text
from steering_core.storage.integrity import check_seal, seal

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
    source = json.dumps(made_from, sort_keys=True, allow_nan=False)
    digest = hashlib.sha256(source.encode()).hexdigest()
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
