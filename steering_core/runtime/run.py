"""The frame around a whole run of the workflow: dead locks at its start, failed jobs at its end.

Snakemake's lock does not name its owner. After SIGKILL the directory stays locked until somebody
runs ``--unlock``. So each run also holds a kernel lock on ``.snakemake/runs/{machine}``, which ends
with its process. This file is empty while nothing runs.
"""

import atexit
import fcntl
import re
import shutil
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from steering_core.runtime.memory import memory_advice

# ------------------------------------------------------------------------- locks of dead runs
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


# ------------------------------------------------------------------------------- failed jobs
_FAILED = re.compile(r"^\s+log: (.+) \(check log file\(s\) for error details\)$", re.MULTILINE)
_RECORD = re.compile(r"^\d{4}-\d\d-\d\d [\d:,]+ ([A-Z]+) \S+: (.*)$")


def explain_failures(workflow_logs: Iterable[str | Path]) -> list[str]:
    """Return a line for each failed job: its log, and the error that ended the job.

    Args:
        workflow_logs: the logs of the workflow manager, which name the logs of the failed jobs.

    """
    named = [
        log
        for file in workflow_logs
        for match in _FAILED.findall(_read(file))
        for log in match.split(", ")
    ]
    return [f"{log}: {_last_error(_read(log)) or _killed(log)}" for log in dict.fromkeys(named)]


def _read(path: str | Path) -> str:
    file = Path(path)
    return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""


def _last_error(text: str) -> str:
    """Return the message of the last error, with the last line of its traceback if it has one.

    The result is empty if there is no error.
    """
    message, end = "", ""
    for line in text.splitlines():
        record = _RECORD.match(line)
        if record is None:
            end = line.strip() or end
        elif record[1] == "ERROR":
            message, end = record[2], ""
    # Our own messages may span several lines; of a traceback the last line is enough.
    return f"{message}: {end}" if end else message


def _killed(log: str) -> str:
    """Return advice for a job that ended without a message. Its log is named after its rule."""
    advice = memory_advice(Path(log).stem.split("-")[0], killed=True)
    return (
        "ended without an error message: it was killed, or ran out of memory or time. If it was "
        f"memory, {advice}."
    )
