"""Write a file or a directory completely or not at all."""

import glob
import json
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from steering_core.storage.claims import check_claim

_HOST = re.sub(r"[^A-Za-z0-9_-]", "-", socket.gethostname())


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary sibling of ``path`` that replaces it when the block succeeds.

    The file is synced before the rename, so a crash leaves the old file or the new one, never a
    part. On an exception the temporary file is removed and ``path`` stays as it was. What a
    killed process of this machine left of an earlier attempt is removed first.

    Raises:
        StorageError: if the process claimed ``path`` and a newer job did so since.

    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=_prefix(path), suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        _sync(temporary)
        check_claim(path)
        temporary.replace(path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: str | Path) -> Iterator[Path]:
    """Yield a temporary directory that replaces ``path`` when the block succeeds.

    Raises:
        StorageError: as :func:`atomic_path`.

    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    temporary, aside = _beside(path), None
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        for file in (*temporary.rglob("*"), temporary):
            _sync(file)
        check_claim(path)
        if path.exists():  # moved aside whole: what stands at `path` is never half a directory
            aside = _beside(path)
            path.replace(aside / "old")
        temporary.replace(path)
        _sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)


def _beside(path: Path) -> Path:
    return Path(tempfile.mkdtemp(dir=path.parent, prefix=_prefix(path), suffix=".tmp"))


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as indented JSON with sorted keys, atomically. NaN is an error."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def _prefix(path: Path) -> str:
    """Name the machine and the process, so that a leftover can be told from work in progress."""
    return f".{path.name}.{_HOST}.{os.getpid()}."


def _remove_leftovers(path: Path) -> None:
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.{_HOST}.*.tmp"):
        process = leftover.name.split(f".{_HOST}.")[-1].split(".")[0]
        if not process.isdecimal() or _is_alive(int(process)):
            continue
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        return True
    return True


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
