"""Write files completely or not at all, and let only the latest job write an output.

A job that outlives its workflow goes on writing. Meanwhile a newer job may be making the same file
with other settings, and the older result must not replace it. So each job claims its outputs. A
claim is a hidden file ``.{name}.claim`` beside the output that holds a token of the job. It exists
while the job runs.

Checking a claim and renaming a file are two steps. If a newer job begins between them, it replaces
the file with its own result at its end.
"""

import glob
import json
import os
import re
import shutil
import socket
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from steering_core.errors import StorageError

_HOST = re.sub(r"[^A-Za-z0-9_-]", "-", socket.gethostname())

#: Tokens of this process's claims, by absolute path.
_held: dict[Path, str] = {}


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary sibling of ``path`` that replaces it when the block succeeds.

    The file is synced before it is renamed, so a crash leaves the old file or the new one, never a
    part of it. On an exception the temporary file is removed and ``path`` does not change.
    Leftovers of killed processes on this machine are removed first.

    Raises:
        StorageError: if this process claimed ``path`` and a newer job has claimed it since.

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
        for file in (*temporary.rglob("*"), temporary):
            # safetensors and mkdtemp make what they write private
            file.chmod((0o777 if file.is_dir() else 0o666) & ~_umask())
            _sync(file)
        check_claim(path)
        if path.exists():  # move it aside, so that `path` is never half a directory
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


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        StorageError: if it is missing or not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StorageError(f"{path} does not exist: run the stage that writes it.") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise StorageError(f"{path} is damaged: delete it and run again.") from error


def claim_of(path: str | Path) -> Path:
    """Return the path of the claim to ``path``."""
    path = Path(path)
    return path.with_name(f".{path.name}.claim")


@contextmanager
def claimed(paths: Iterable[str | Path]) -> Iterator[None]:
    """Claim ``paths`` for the block; this ends the claims of other processes to them.

    Raises:
        OSError: if a claim cannot be written.

    """
    token = uuid.uuid4().hex
    held = [Path(path).absolute() for path in paths]
    try:
        for path in held:
            path.parent.mkdir(parents=True, exist_ok=True)
            # No sync and no rename needed: even half a token ends the claims of other jobs.
            claim_of(path).write_text(token, encoding="ascii")
            _held[path] = token
        yield
    finally:
        for path in held:
            if _held.pop(path, None) is not None and _holder(path) == token:
                claim_of(path).unlink(missing_ok=True)


def check_claim(path: str | Path) -> None:
    """Check that this process still holds its claim to ``path``, if it made one.

    Raises:
        StorageError: if a newer job claimed it.

    """
    token = _held.get(Path(path).absolute())
    if token is not None and _holder(path) != token:
        raise StorageError(
            f"{path} is being made, or was made, by a newer job. This job outlived its workflow, "
            "so its result is dropped."
        )


def _holder(path: str | Path) -> str | None:
    try:
        return claim_of(path).read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:  # the newer job has ended and removed it
        return None


def _prefix(path: Path) -> str:
    """Return a prefix with machine and process, to tell leftovers from work in progress."""
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
    except PermissionError:  # a process of another user
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
