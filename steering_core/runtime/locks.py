"""Remove the locks of a working directory whose run was killed.

Snakemake's lock does not name its owner. After SIGKILL the directory stays locked until somebody
runs ``--unlock``. So each run also holds a kernel lock on ``.snakemake/runs/{machine}``, which ends
with its process. This file is empty while nothing runs.
"""

import atexit
import fcntl
import shutil
import socket
from pathlib import Path
from typing import IO

_RUNNING = "running\n"


def take_over(folder: Path) -> bool:
    """Record this run, and remove the locks in ``folder`` if every run that may hold them is dead.

    The locks stay if another run on this machine is alive, if a run on another machine did not end
    (it may be alive), or if the file system does not support kernel locks.

    Args:
        folder: ``.snakemake`` of the working directory.

    Returns:
        True if there were locks and they were removed.

    """
    runs, own = folder / "runs", socket.gethostname()
    try:
        runs.mkdir(parents=True, exist_ok=True)
        # Jobs do not inherit the lock: it ends with this process.
        file = (runs / own).open("a+", encoding="ascii")
        alone = _lock(file)
        unfinished = {run.name for run in runs.iterdir() if run.stat().st_size}
        removed = alone and unfinished == {own} and (folder / "locks").is_dir()
        if removed:
            shutil.rmtree(folder / "locks")
        fcntl.flock(file, fcntl.LOCK_SH)
        file.write(_RUNNING)
        file.flush()
    except OSError:  # read-only directory or no kernel locks: leave all as it is
        return False
    atexit.register(_end, file)
    return removed


def _end(file: IO[str]) -> None:
    """Empty the file if this was the last run on its machine."""
    if _lock(file):
        file.truncate(0)
    file.close()


def _lock(file: IO[str]) -> bool:
    """Try to lock the file exclusively; return False if another process holds a lock on it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
