"""The frame around every stage: fixed threads, checked inputs, a log, sealed outputs."""

import errno
import gc
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from steering_core.errors import SteeringError
from steering_core.runtime.machine import changed_versions, fix_threads, no_bars_in_logs
from steering_core.runtime.memory import explain_exhaustion, memory_advice
from steering_core.storage.files import claimed, read_json
from steering_core.storage.integrity import check_seal, seal

log = logging.getLogger(__name__)
_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

#: Number of new objects after which Python's garbage collector looks for cycles. Imports create
#: half a million objects without cycles. With Python's default of 700 the search took a sixth of
#: the time of imports. The repeated work of a stage leaves no cycles.
_OBJECTS = 10_000


class Terminated(SystemExit):
    """Raised at SIGTERM: the job was cancelled or reached its time limit."""


@contextmanager
def job(snakemake: Any, *, network: bool = False) -> Iterator[None]:
    """Run the block as the stage that ``snakemake`` (the script's object) describes.

    Without ``network`` the Hugging Face libraries work offline; import them inside the block.

    Inputs with a seal are checked against it before the block, and outputs are sealed after it. So
    a file that was damaged in between is reported and never read. The outputs are claimed during
    the block, so that a job that outlived its workflow cannot overwrite the results of a newer job.

    Raises:
        SystemExit: with status 1 for errors of the user's input or environment, including a lack of
            memory or disk space, after logging what to do.
        Terminated: at SIGTERM, so that temporary files are removed.

    """
    folder = Path(snakemake.log[0]).parents[1]
    try:
        with (
            log_to(snakemake.log[0]),
            _terminable(),
            explain_exhaustion(folder, _advice(snakemake)),
            claimed(snakemake.output),
        ):
            fix_threads(getattr(snakemake, "threads", None))
            if not network:
                os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
            no_bars_in_logs()
            gc.set_threshold(_OBJECTS)
            for path in snakemake.input:
                check_seal(path)
            _compare_versions(snakemake)
            yield
            for path in snakemake.output:
                if Path(path).exists():  # otherwise Snakemake reports it as missing
                    seal(path)
            log.info("wrote %s", ", ".join(map(str, snakemake.output)))
    except OSError as error:  # from the log file itself
        if error.errno not in (errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EDQUOT):
            raise
        print(f"{snakemake.log[0]} cannot be written: {error.strerror}.", file=sys.stderr)
        sys.exit(1)


@contextmanager
def _terminable() -> Iterator[None]:
    """Raise :class:`Terminated` in the block at SIGTERM, which otherwise ends Python at once."""
    if threading.current_thread() is not threading.main_thread():  # signals need the main thread
        yield
        return

    def end(number: int, _frame: object) -> None:
        raise Terminated(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    except Terminated:
        log.error("ended by SIGTERM: the job was cancelled or reached its time limit.")
        raise
    except KeyboardInterrupt:
        log.error("interrupted: run the same command again to continue; finished files are kept.")
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _compare_versions(snakemake: Any) -> None:
    """Warn if a library version changed since the fetch stage, because results could be mixed."""
    resources = getattr(snakemake.input, "resources", None)
    if not isinstance(resources, str):
        return
    changed = changed_versions(read_json(resources).get("versions", {}))
    if changed:
        log.warning(
            "%s was made with %s: results from before and after may differ in their last digits. "
            "To have all of one version, delete it and run again.",
            *(resources, changed),
        )


def _advice(snakemake: Any) -> str:
    """Return what to do if the stage that ``snakemake`` describes runs out of memory."""
    params = snakemake.params
    dtype = params.get("model", {}).get("dtype")
    return memory_advice(getattr(snakemake, "rule", ""), params.get("settings", {}), dtype)


@contextmanager
def log_to(path: str | Path) -> Iterator[None]:
    """Send log records and warnings of this process to ``path`` and to standard error.

    An exception is logged before it is raised: a :class:`SteeringError` as its message alone, any
    other exception with its traceback.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    handlers = [logging.FileHandler(path, mode="w", encoding="utf-8"), logging.StreamHandler()]
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.INFO)
    for handler in handlers:
        handler.setFormatter(logging.Formatter(_FORMAT))
        root.addHandler(handler)
    logging.captureWarnings(True)
    for noisy in (
        "httpx",
        "httpx2",
        "httpcore",
        "httpcore2",
        "fsspec",
        "filelock",
        "urllib3",
        "root.tl",
    ):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            yield
    except SteeringError as error:
        root.error("%s", error)
        sys.exit(1)  # the message is enough; a traceback would hide it
    except Exception:
        root.exception("the job failed")
        raise
    finally:
        logging.captureWarnings(False)
        for handler in handlers:
            root.removeHandler(handler)
            handler.close()
        root.setLevel(level)
