"""Processes of this machine, to kill exactly the right ones."""

import os
import signal
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


def children(process: int) -> list[int]:
    """Processes that descend from ``process``, the nearest first."""
    found, waiting = [], [process]
    while waiting:
        parent = waiting.pop(0)
        below: list[int] = []
        with suppress(FileNotFoundError, ProcessLookupError):  # the process has ended
            for task in list(Path(f"/proc/{parent}/task").iterdir()):
                with suppress(FileNotFoundError, ProcessLookupError):  # one of its threads has
                    below += map(int, (task / "children").read_text().split())
        found += below
        waiting += below
    return found


def command_line(process: int) -> bytes:
    """What a process was started with; nothing if it has ended."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def started_as(beginning: bytes) -> list[int]:
    """Processes whose command line begins so."""
    processes = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [process for process in processes if command_line(process).startswith(beginning)]


def kill_all(processes: Iterable[int]) -> None:
    """SIGKILL to each that is still there."""
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
