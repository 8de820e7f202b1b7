# The resources that a job requests: memory, cores, time, GPUs.
from functools import cache
from pathlib import Path

from snakemake.logging import logger

from steering_core.runtime.machine import gpus_on, threads
from steering_core.runtime.memory import read_sizes


@cache
def sizes_in(path, written):
    """Return the sizes of a fetched model and its SAEs; `written` is the time of the file."""
    return read_sizes(path)


def sizes(wildcards):
    """Return the sizes of the model and the SAEs of a job; None until they are fetched.

    Snakemake asks again when a job is ready, and then they are.
    """
    found = f"{wildcards.run}/corrsteer" if hasattr(wildcards, "run") else wildcards.experiment
    path = Path("results", found, "resources.json")
    return sizes_in(path, path.stat().st_mtime_ns) if path.is_file() else None


def megabytes(first, **times):
    """Return the memory of a job in MB, doubled on every retry.

    With `model`, `weights32`, `sae`, `saes` or `judges`, how many times the size of each the job
    needs, it follows from these sizes. `first` is the request without them, and until they are
    fetched. A number of times may be a function of the wildcards.
    """

    def request(wildcards, attempt):
        found = sizes(wildcards) if times else None
        asked = {name: t(wildcards) if callable(t) else t for name, t in times.items()}
        needed = first if found is None else found.megabytes(**asked)
        return needed * 2 ** (attempt - 1)

    return request


def cores(wildcards):
    """Return the number of cores of a job that runs the model or reads what it was fitted on.

    They are no more than its threads, so that with STEERING_THREADS=1 jobs run side by side.
    """
    found = sizes(wildcards)
    return min(2 if found is None else found.cores, threads())


def minutes(first):
    """Return the time limit of a job in minutes, doubled on every retry."""
    return lambda wildcards, attempt: first * 2 ** (attempt - 1)


@cache
def gpus_of(device):
    """Return the number of GPUs of a job; warn once if `auto` cannot see the GPUs of the nodes."""
    found = gpus_on(device)
    if device == "auto" and not found and workflow.is_main_process and not workflow.local_exec:
        logger.warning(
            "device: auto finds no GPU on this machine, which submits the jobs, so all jobs run on "
            "CPUs. If the nodes have GPUs, give --config device=cuda."
        )
    return found


def gpus(wildcards):
    """Return the number of GPUs of a job that runs the experiment's model."""
    return gpus_of(experiment(wildcards).settings.device)
