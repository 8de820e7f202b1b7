"""What surrounds every stage: fixed threads, checked inputs, a log, sealed outputs."""

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
from steering_core.runtime.advice import explain_exhaustion, memory_advice
from steering_core.runtime.machine import changed_versions, fix_threads, no_bars_in_logs
from steering_core.storage.files import claimed, read_json
from steering_core.storage.integrity import check_seal, seal

log = logging.getLogger(__name__)
_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

#: New objects after which Python looks for cycles. Imports make half a million that are in none,
#: and looking among them at its own 700 took a sixth of their time. Nothing that a stage repeats
#: leaves cycles.
_OBJECTS = 10_000


class Terminated(SystemExit):
    """SIGTERM: the job was cancelled, or its time is over."""


@contextmanager
def job(snakemake: Any, *, network: bool = False) -> Iterator[None]:
    """Run the block as the stage that ``snakemake`` (the script's object) describes.

    Without ``network`` the libraries of Hugging Face are told to work offline; import them inside
    the block. Inputs that carry a seal are compared with it first; outputs get one at the end, so
    a file that was damaged in between is named and never read. Outputs are claimed meanwhile: a
    job that outlived its workflow cannot put its results over those of a newer one.

    Raises:
        SystemExit: with status 1, after logging what to do, for every error of the user's input
            or environment; memory and disk that ran out are among them.
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
                if Path(path).exists():  # else Snakemake says what is missing
                    seal(path)
            log.info("wrote %s", ", ".join(map(str, snakemake.output)))
    except OSError as error:  # of the log itself
        if error.errno not in (errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EDQUOT):
            raise
        print(f"{snakemake.log[0]} cannot be written: {error.strerror}.", file=sys.stderr)
        sys.exit(1)


@contextmanager
def _terminable() -> Iterator[None]:
    """End the block by :class:`Terminated` at SIGTERM, which otherwise ends Python at once."""
    if threading.current_thread() is not threading.main_thread():  # of no stage
        yield
        return

    def end(number: int, _frame: object) -> None:
        raise Terminated(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    except Terminated:
        log.error("ended by SIGTERM: the job was cancelled, or its time is over.")
        raise
    except KeyboardInterrupt:
        log.error("interrupted: the same command goes on from what is finished.")
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _compare_versions(snakemake: Any) -> None:
    """Warn if a library changed since the fetch stage: results of both must not be mixed."""
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

    An exception is logged before it is raised: an error of the user's input as its message alone,
    anything else with its traceback.
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
        sys.exit(1)  # the message is the whole story; a traceback would bury it
    except Exception:
        root.exception("the job failed")
        raise
    finally:
        logging.captureWarnings(False)
        for handler in handlers:
            root.removeHandler(handler)
            handler.close()
        root.setLevel(level)
