"""Locks of a working directory whose owner was killed.

Snakemake's lock names no owner, so one that was killed by SIGKILL locks its directory until
somebody says ``--unlock``. Each run therefore holds, beside it, a lock of the kernel's, which ends
with its process: on ``.snakemake/runs/{machine}``, a file that is empty while nothing runs.
"""

import atexit
import fcntl
import shutil
import socket
from pathlib import Path
from typing import IO

_RUNNING = "running\n"


def take_over(folder: Path) -> bool:
    """Note this run and remove the locks in ``folder`` if each run that may hold them is dead.

    Locks stay where another run on this machine is alive, where one was begun on another machine
    and did not end (it may be alive), or where the file system has no locks.

    Args:
        folder: ``.snakemake`` of the working directory.

    Returns:
        Whether there were locks, and they were removed.

    """
    runs, own = folder / "runs", socket.gethostname()
    try:
        runs.mkdir(parents=True, exist_ok=True)
        # Not inherited by jobs: it ends with this process.
        file = (runs / own).open("a+", encoding="ascii")
        alone = _lock(file)
        unfinished = {run.name for run in runs.iterdir() if run.stat().st_size}
        removed = alone and unfinished == {own} and (folder / "locks").is_dir()
        if removed:
            shutil.rmtree(folder / "locks")
        fcntl.flock(file, fcntl.LOCK_SH)
        file.write(_RUNNING)
        file.flush()
    except OSError:  # a read-only directory, or no locks: as without this module
        return False
    atexit.register(_end, file)
    return removed


def _end(file: IO[str]) -> None:
    """Note that no run is left, if this was the last one on its machine."""
    if _lock(file):
        file.truncate(0)
    file.close()


def _lock(file: IO[str]) -> bool:
    """Whether no other process holds a lock on the file; then this one does, alone."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
