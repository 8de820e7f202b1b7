"""Snakemake, with the scripts of its jobs run in forks of one process.

A job of a tiny world spends seconds on importing torch and transformers and a moment on its work.
Here one process imports them, once for a whole run. Each job is still a process of its own that
runs the very file that Snakemake wrote for it, and fails or ends as it would alone.

A forked job cannot show that a script imports what it needs, nor that it fixes threads and goes
offline before a library asks. So the runs of `llama8` on MMLU-Pro and of GPT-2 on SST-2 start every
job anew, and so do the runs that make a damaged file again, byte for byte. Use it as
``python -m snakemake``:

    python tests/forked_jobs.py --cores 2 demo
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SNAKEMAKE = (sys.executable, str(Path(__file__).resolve()))
#: Imported once. None of them reads whether there is a network.
_LIBRARIES = [
    *("numpy", "pandas", "pyarrow.parquet", "scipy.sparse.linalg", "scipy.stats"),
    *("sklearn.linear_model", "sklearn.model_selection", "torch", "torch._dynamo", "pydantic"),
    "snakemake.script",
]
#: These do, as they are imported: for runs that are offline from the start.
_OFFLINE = [
    *("transformers.models.llama.modeling_llama", "transformers.models.auto.modeling_auto"),
    *("transformers.generation.utils", "sae_lens"),
]
#: Held to start a job and to look whether one has ended: both read what the other may read.
_lock = threading.Lock()


def run_script(path: str) -> None:
    """Run a script of a job as ``python path`` does."""
    sys.argv = [path]
    sys.path[0] = str(Path(path).parent)
    runpy.run_path(path, run_name="__main__")


def _ended(process: multiprocessing.process.BaseProcess) -> bool:
    with _lock:
        return process.exitcode is not None


def main() -> None:
    """Run Snakemake with the arguments of this process."""
    sys.path.insert(0, str(ROOT))
    from snakemake.benchmark import benchmarked
    from snakemake.cli import main as snakemake
    from snakemake.script import PythonScript

    from steering_core.runtime.machine import fix_threads, no_bars_in_logs

    fix_threads()  # the libraries read these as they are imported
    no_bars_in_logs()
    context = multiprocessing.get_context("forkserver")
    offline = os.environ.get("HF_HUB_OFFLINE") == "1"
    context.set_forkserver_preload(_LIBRARIES + (_OFFLINE if offline else []))

    def execute_script(self: PythonScript, fname: str, edit: bool = False) -> None:
        process = context.Process(target=run_script, args=(fname,))
        with _lock:
            process.start()
        with benchmarked(process.pid, self.bench_record):
            while not _ended(process):
                time.sleep(0.02)
        if process.exitcode:
            raise subprocess.CalledProcessError(process.exitcode, [sys.executable, fname])

    PythonScript.execute_script = execute_script
    snakemake()


if __name__ == "__main__":
    main()
