"""Who may write an output: the job that claimed it last.

A job that outlives its workflow goes on writing. By then a newer one may be making the same file
with other settings; the older one's result must not take its place. A claim is a hidden file
``.{name}.claim`` beside the output, with a token of the job; it is there while the job runs.

Looking at a claim and renaming are two steps. In between, a newer job can at most have begun, and
puts its own result in place at its end.
"""

import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from steering_core.errors import StorageError

#: Tokens of this process by absolute path.
_held: dict[Path, str] = {}


def claim_of(path: str | Path) -> Path:
    """Return where the claim to ``path`` is."""
    path = Path(path)
    return path.with_name(f".{path.name}.claim")


@contextmanager
def claimed(paths: Iterable[str | Path]) -> Iterator[None]:
    """Claim ``paths`` for the block; claims of other processes to them end.

    Raises:
        OSError: if a claim cannot be written.

    """
    token = uuid.uuid4().hex
    held = [Path(path).absolute() for path in paths]
    try:
        for path in held:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Neither synced nor renamed: half a token is a claim of another job as well.
            claim_of(path).write_text(token, encoding="ascii")
            _held[path] = token
        yield
    finally:
        for path in held:
            if _held.pop(path, None) is not None and _holder(path) == token:
                claim_of(path).unlink(missing_ok=True)


def check_claim(path: str | Path) -> None:
    """Check that this process still holds the claim to ``path``, if it ever did.

    Raises:
        StorageError: if a newer job claimed it.

    """
    token = _held.get(Path(path).absolute())
    if token is not None and _holder(path) != token:
        raise StorageError(
            f"{path} is being made, or was made, by a newer job: this one outlived its workflow, "
            "and what it made is dropped."
        )


def _holder(path: str | Path) -> str | None:
    try:
        return claim_of(path).read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:  # the newer job has ended
        return None
