"""The machine under a stage: threads, GPUs, and versions of the libraries.

This module does not import torch, which would take seconds.
"""

import importlib.metadata
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from steering_core.errors import ResourceError

#: Threads of the numeric libraries. The last digits of a product depend on how it is divided among
#: threads, so the number must not depend on the free cores.
THREADS = 2
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "RAYON_NUM_THREADS",
)

#: How often a waiting thread spins before it sleeps. The library's default is three hundred times
#: as much. It makes small matrix products very slow if another process needs the cores.
_SPINS = "1000"

#: Libraries on which the numbers of a model depend.
LIBRARIES = ("torch", "transformers", "transformer-lens", "sae-lens", "datasets", "pyarrow")

_DEVICES = Path("/dev")


def threads() -> int:
    """Return the threads of a job: ``STEERING_THREADS``, or :data:`THREADS`.

    Raises:
        ResourceError: if ``STEERING_THREADS`` is not a positive whole number.
    """
    given = os.environ.get("STEERING_THREADS", str(THREADS))
    if not re.fullmatch(r"[1-9][0-9]*", given):
        raise ResourceError(f"STEERING_THREADS: {given!r} is not a positive whole number.")
    return int(given)


def fix_threads(cores: int | None = None) -> None:
    """Fix the threads of numpy, torch and tokenizers. Call before they are imported.

    Another number of :func:`threads` may change last digits.

    Args:
        cores: cores granted to the job. With fewer cores than threads, waiting threads sleep at
            once, because another job could use the core. This changes no digit.

    Raises:
        ResourceError: as :func:`threads`.
    """
    number = threads()
    for name in _THREAD_VARIABLES:
        os.environ[name] = str(number)
    os.environ["OMP_DYNAMIC"] = os.environ["MKL_DYNAMIC"] = "FALSE"
    if cores is not None and cores < number:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    else:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)
    if "torch" in sys.modules:  # the variables have no effect after the import
        sys.modules["torch"].set_num_threads(number)


def no_bars_in_logs() -> None:
    """Keep the libraries' progress bars out of a log. Call before they are imported."""
    if not sys.stderr.isatty():
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"  # transformers reads it too
        os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"


def shows_gpu() -> bool:
    """Return whether the driver of an NVIDIA GPU has made its device on this machine."""
    return any(_DEVICES.glob("nvidia[0-9]*"))


def gpus_on(device: str) -> int:
    """Return the number of GPUs of a job that runs a model on the configured ``device``.

    ``auto`` means one GPU if this machine has one.
    """
    return int(device == "cuda" or (device == "auto" and shows_gpu()))


def running_versions() -> dict[str, str]:
    """Return the installed versions, without the build (``2.13.0`` of ``2.13.0+cu126``).

    Nodes with and without a GPU have different builds of the same version.
    """
    return {name: importlib.metadata.version(name).split("+")[0] for name in LIBRARIES}


def changed_versions(since: Mapping[str, str]) -> str:
    """Return the libraries whose versions differ from ``since``, as one text; empty if none."""
    now = running_versions()
    return ", ".join(
        f"{name} {since[name]} (now {now[name]})"
        for name in sorted(now)
        if name in since and since[name].split("+")[0] != now[name]
    )
