"""What surrounds every stage: fixed threads, checked inputs, a log, sealed outputs."""

import errno
import gc
import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from steering_core.errors import ResourceError
from steering_core.logs import log_to
from steering_core.memory import memory_advice
from steering_core.storage.claims import claimed
from steering_core.storage.json import read_json
from steering_core.storage.seals import check_seal, seal
from steering_core.versions import changed_versions

log = logging.getLogger(__name__)

#: Threads of the numeric libraries. The last digits of a product depend on how it was divided
#: among threads, so the number must not follow the cores that happen to be free.
THREADS = 2
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "RAYON_NUM_THREADS",
)

#: How often a waiting thread looks before it sleeps. The library's own, three hundred times that,
#: makes the small products of a small model crawl wherever another process wants the cores.
_SPINS = "1000"

#: New objects after which Python looks for cycles. Imports make half a million that are in none,
#: and looking among them at its own 700 took a sixth of their time. Nothing that a stage repeats
#: leaves cycles.
_OBJECTS = 10_000

_OUT_OF_MEMORY = re.compile(
    r"out of memory|can't allocate memory|not enough memory|CUBLAS_STATUS_ALLOC_FAILED", re.I
)
_DISK_FULL = re.compile(r"no space left on device|disk quota exceeded", re.I)
_READ_ONLY = re.compile(r"read-only file system|permission denied", re.I)
#: What a file system on a network says of itself, not of a file.
_FILE_SYSTEM = (errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT)


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


def fix_threads(cores: int | None = None) -> None:
    """Fix the threads of numpy, torch and tokenizers. Call before they are imported.

    ``STEERING_THREADS`` overrides :data:`THREADS`; another number may change last digits.

    Args:
        cores: granted to the job. With fewer cores than threads, waiting threads sleep
            at once, as another job could use the core; no digit depends on it.

    Raises:
        ResourceError: if it is not a positive whole number.
    """
    threads = os.environ.get("STEERING_THREADS", str(THREADS))
    if not re.fullmatch(r"[1-9][0-9]*", threads):
        raise ResourceError(f"STEERING_THREADS: {threads!r} is not a positive whole number.")
    for name in _THREAD_VARIABLES:
        os.environ[name] = threads
    os.environ["OMP_DYNAMIC"] = os.environ["MKL_DYNAMIC"] = "FALSE"
    if cores is not None and cores < int(threads):
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    else:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)
    if "torch" in sys.modules:  # too late for the variables
        sys.modules["torch"].set_num_threads(int(threads))


def no_bars_in_logs() -> None:
    """Keep the libraries' own bars off a log. Call before they are imported."""
    if not sys.stderr.isatty():
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"  # of transformers too
        os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"


@contextmanager
def explain_exhaustion(folder: Path, advice: str = "") -> Iterator[None]:
    """Turn exhausted memory or disk inside the block into one :class:`ResourceError`.

    Args:
        folder: where the stage writes, for the message.
        advice: what to do when memory has run out; that of any stage by default.

    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not _OUT_OF_MEMORY.search(str(error)):
            raise
        raise ResourceError(f"out of memory: {advice or memory_advice('')}. ({error})") from error
    except (OSError, SafetensorError) as error:
        message = _disk_advice(error, folder)
        if message is None:
            raise
        raise ResourceError(message) from error


def _advice(snakemake: Any) -> str:
    """Return what to do if the stage that ``snakemake`` describes runs out of memory."""
    params = snakemake.params
    dtype = params.get("model", {}).get("dtype")
    return memory_advice(getattr(snakemake, "rule", ""), params.get("settings", {}), dtype)


def _disk_advice(error: Exception, folder: Path) -> str | None:
    """Return what to do about a full, read-only or failing disk; None if it is something else."""
    number = getattr(error, "errno", None)
    if number in (errno.ENOSPC, errno.EDQUOT) or _DISK_FULL.search(str(error)):
        return (
            f"the disk that holds {folder} is full: free some space and run the same command "
            f"again; finished files are kept. ({error})"
        )
    if number in (errno.EROFS, errno.EACCES) or _READ_ONLY.search(str(error)):
        return (
            f"{folder} cannot be written or a file not be read: check the permissions, or choose "
            f"another place with --directory. ({error})"
        )
    if number in _FILE_SYSTEM:
        return (
            f"the file system of {folder} or of an input failed: finished files are kept; run the "
            f"same command again once it works. ({error})"
        )
    return None
