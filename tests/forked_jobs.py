"""Snakemake and the scripts of its jobs, run in forks of processes that have the libraries loaded.

A run of a tiny world spends seconds on importing Snakemake, each of its jobs more on torch and
transformers, and a moment on its work. Here one process imports them, once for all runs whose
environment looks the same to the libraries. Snakemake and each job are still processes of their
own, with the files, the environment and the directory that they are given. A job runs the very file
that Snakemake wrote for it, and fails or ends as it would alone; it is a grandchild of the process
that runs Snakemake.

A forked job cannot show that a script imports what it needs, nor that it fixes threads and goes
offline before a library asks. So the run of `llama8` on MMLU-Pro starts the first job of each
script anew, that of GPT-2 on SST-2 every job, and so do the runs that make a damaged file again,
byte for byte.

Tests call :func:`run` or :func:`start`. On the command line it is used as ``python -m snakemake``:

    python tests/forked_jobs.py --cores 2 demo

A cluster starts Snakemake anew for each job, twice. There :func:`standing_for_python` gives it a
program in Python's place.
"""

import asyncio
import atexit
import gc
import importlib
import json
import logging
import multiprocessing
import os
import pkgutil
import queue
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, Listener, wait
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from steering_core.runtime.digest import code_digest  # noqa: E402
from steering_core.runtime.machine import fix_threads, no_bars_in_logs  # noqa: E402

SNAKEMAKE = (sys.executable, str(Path(__file__).resolve()))
#: Imported once. None of them reads whether there is a network.
_LIBRARIES = [
    *("osqp", "snakemake.cli", "snakemake.benchmark", "snakemake.script"),
    *("numpy", "pandas", "pyarrow.parquet", "scipy.sparse.linalg", "scipy.stats"),
    *("sklearn.linear_model", "sklearn.model_selection", "torch", "torch._dynamo", "pydantic"),
]
#: These do, as they are imported: for jobs that are offline from the start.
_OFFLINE = [
    *("transformers.models.llama.modeling_llama", "transformers.models.auto.modeling_auto"),
    *("transformers.generation.utils", "sae_lens", "datasets"),
]
#: A stage that may ask a hub says so.
_ONLINE = "network=True"
_SERVE = "--serve"
#: What begins so may be read as a library is imported.
_READ = ("HF_", "TRANSFORMERS_", "TOKENIZERS_", "OMP_", "PYTHON", "STEERING_")
_forks = multiprocessing.get_context("fork")
#: Asks for a fork of Snakemake and lives as long as it does. One that runs a rule of ``anew`` is
#: Python itself.
_STAND_IN = """\
#!{python} -IS
import json, os, socket, sys
from multiprocessing.connection import Client
if not {anew!r}.isdisjoint(sys.argv):
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
if sys.argv[1:3] != ["-m", "snakemake"]:
    sys.exit(f"only for Snakemake, not for {{sys.argv[1:]}}")
with Client({address!r}) as channel:
    request = [sys.argv[0], sys.argv[3:], os.getcwd(), dict(os.environ)]
    channel.send_bytes(json.dumps(request).encode())
    with socket.socket(fileno=os.dup(channel.fileno())) as line:
        socket.send_fds(line, [b"."], [1, 2])
    sys.exit(channel.recv())
"""


# What the tests call.


def offline_environment() -> dict[str, str]:
    """Return the environment of a node without a network, which is one and the same for all tests.

    So the libraries are imported once for their runs. A job has one thread: a second one waits more
    than it works, where other workers and jobs need the core.
    """
    given = {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9", "STEERING_THREADS": "1"}
    return {**os.environ, "PYTHONPATH": str(ROOT), **given}


class Running:
    """A run of Snakemake in a process ``pid`` of its own, like a :class:`subprocess.Popen`."""

    def __init__(self, pid: int, loaded: "_Loaded") -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._loaded = loaded

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""
        if self.returncode is None and self._loaded.channel.poll():
            self.returncode = self._loaded.channel.recv()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit code.

        Raises:
            TimeoutExpired: if it runs for longer.
        """
        if self.returncode is None and self._loaded.channel.poll(timeout):
            self.returncode = self._loaded.channel.recv()
        if self.returncode is None:
            raise subprocess.TimeoutExpired("snakemake", timeout)
        return self.returncode


def start(
    arguments: Sequence[str],
    *,
    cwd: Path,
    env: dict[str, str],
    stdout: IO,
    stderr: IO,
    first_anew: bool = False,
) -> Running:
    """Start Snakemake; the run before must have ended.

    With ``first_anew`` the first job of each script is no fork but starts as it would alone.
    """
    request = [list(arguments), str(cwd), first_anew, env]
    return _loaded(env).start(request, stdout, stderr)


def run(
    arguments: Sequence[str],
    *,
    env: dict[str, str],
    cwd: Path = ROOT,
    timeout: float = 2000,
    first_anew: bool = False,
) -> subprocess.CompletedProcess:
    """Run Snakemake to its end and return what it printed and its exit code."""
    with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
        given = {"cwd": cwd, "env": env, "first_anew": first_anew}
        running = start(arguments, **given, stdout=stdout, stderr=stderr)
        try:
            running.wait(timeout)
        finally:
            if running.poll() is None:
                os.kill(running.pid, 9)
                running.wait(60)
        printed = []
        for file in (stdout, stderr):
            file.seek(0)
            printed.append(file.read())
    return subprocess.CompletedProcess(list(arguments), running.returncode, *printed)


@contextmanager
def standing_for_python(
    scratch: Path, *, env: dict[str, str], anew: Sequence[str] = ()
) -> Iterator[Path]:
    """Yield a program that is started as ``python -m snakemake`` and runs it in a fork.

    Snakemake takes it for its own Python: so the jobs that it submits to a cluster are started by
    the same program, those of the rules ``anew`` excepted. They are as they would be alone. If the
    program is killed, so is all that it runs. Snakemake asks the cluster for its jobs every second.

    Args:
        scratch: a folder for the program and its socket.
        env: the environment under which the libraries are imported; no other run may be started.
        anew: rules whose jobs start Python itself.

    """
    address, program = str(scratch / "forks"), scratch / "python"
    program.write_text(_STAND_IN.format(python=sys.executable, address=address, anew=set(anew)))
    program.chmod(0o755)
    with (scratch / "forks.log").open("w") as log:
        serving = start([_SERVE, address], cwd=ROOT, env=env, stdout=log, stderr=log)
    while not Path(address).exists():
        assert serving.poll() is None, (scratch / "forks.log").read_text()
        time.sleep(0.05)
    try:
        yield program
    finally:
        os.kill(serving.pid, signal.SIGKILL)
        serving.wait(60)


# The process that has the libraries loaded, and what is forked off it.


class _Loaded:
    """A process with the libraries loaded that starts a fork of itself for each run."""

    def __init__(self, env: dict[str, str]) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, __file__, "--fork", str(theirs.fileno())]
            self.process = subprocess.Popen(command, env=env, pass_fds=[theirs.fileno()])
        self.channel = Connection(ours.detach())

    def start(self, request: list, stdout: IO, stderr: IO) -> Running:
        with socket.socket(fileno=os.dup(self.channel.fileno())) as line:
            self.channel.send_bytes(json.dumps(request).encode())
            socket.send_fds(line, [b"."], [stdout.fileno(), stderr.fileno()])
        return Running(self.channel.recv(), self)

    def end(self) -> None:
        self.channel.close()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(10)


_kept: dict[tuple[tuple[str, str], ...], _Loaded] = {}


def _loaded(env: dict[str, str]) -> _Loaded:
    """The process whose libraries were imported under ``env``, in the place of the last other."""
    key = tuple(sorted((name, value) for name, value in env.items() if name.startswith(_READ)))
    if key not in _kept:
        _end_all()
        _kept[key] = _Loaded(env)
    return _kept[key]


@atexit.register
def _end_all() -> None:
    while _kept:
        _kept.popitem()[1].end()


def _fork_runs(line: int) -> None:
    """Start a fork for each run that is asked for, until there is nobody to ask."""
    _prepare()
    channel = Connection(line)
    while True:
        try:
            request = json.loads(channel.recv_bytes())
        except EOFError:
            return
        with socket.socket(fileno=os.dup(line)) as received:
            _, files, _, _ = socket.recv_fds(received, 1, 2)
        process = _forks.Process(target=_run, args=(*request, files, channel))
        process.start()
        for file in files:
            os.close(file)
        channel.send(process.pid)
        process.join()
        channel.send(process.exitcode)


def _run(
    arguments: Sequence[str],
    cwd: str,
    first_anew: bool,
    env: dict[str, str],
    files: list[int],
    channel: Connection,
) -> None:
    """Run Snakemake in this fork; ``files`` are its standard output and standard error."""
    channel.close()
    for number, file in zip((1, 2), files, strict=True):
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(env)  # without the threads that were fixed for the imports
    os.chdir(cwd)
    try:
        if arguments[0] == _SERVE:
            _serve(arguments[1])
        else:
            _snakemake(arguments, first_anew)
    finally:
        logging.shutdown()


def _serve(address: str) -> None:
    """Run Snakemake for each program that asks at ``address``, until this process is killed."""
    from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

    async def sleep(self: RemoteExecutor) -> None:
        await asyncio.sleep(1)  # SLURM's waits 10 s longer whenever no job has ended

    RemoteExecutor.sleep = sleep
    with Listener(address, backlog=64) as listener:
        while True:
            with listener.accept() as channel:
                _forks.Process(target=_stay_with, args=(channel,)).start()


def _stay_with(channel: Connection) -> None:
    """Run Snakemake for a program and tell it the exit code; if the program ends, kill the run."""
    os.setsid()  # a group of processes, which can be killed together
    sys.executable, arguments, cwd, env = json.loads(channel.recv_bytes())
    with socket.socket(fileno=os.dup(channel.fileno())) as line:
        _, files, _, _ = socket.recv_fds(line, 1, 2)
    run = _forks.Process(target=_run, args=(arguments, cwd, False, env, files, channel))
    run.start()
    for file in files:
        os.close(file)
    if channel in wait([channel, run.sentinel]):
        os.killpg(0, signal.SIGKILL)
    run.join()
    channel.send(run.exitcode)


def _prepare() -> None:
    """Import what every run and every job needs, in this order: OSQP before Snakemake's solver."""
    fix_threads()  # the libraries read these as they are imported
    no_bars_in_logs()
    for name in _LIBRARIES:
        importlib.import_module(name)
    if os.environ.get("HF_HUB_OFFLINE") == "1":
        _import_offline()
    for script in (ROOT / "workflow_scripts").glob("*.py"):
        code_digest(script)  # Snakemake reads all of them; the modules that they use are kept
    gc.freeze()


def _import_offline() -> None:
    for name in _OFFLINE:
        importlib.import_module(name)
    import steering_core

    for module in pkgutil.walk_packages(steering_core.__path__, "steering_core."):
        importlib.import_module(module.name)


def _snakemake(arguments: Sequence[str], first_anew: bool = False) -> None:
    """Run Snakemake in this process, its jobs in forks."""
    from snakemake.benchmark import benchmarked
    from snakemake.cli import main as snakemake
    from snakemake.script import PythonScript

    # Before Snakemake starts a thread: a fork has only one of them, and the locks of all.
    online = _Jobs(online=True)
    offline = _Jobs(online=False, beside=online)

    started: set[str] = set()
    start_anew = PythonScript.execute_script

    def execute_script(self: PythonScript, fname: str, edit: bool = False) -> None:
        script = Path(fname).name.split(".", 1)[1]  # what is before it is a name of this job
        if first_anew and script not in started:
            started.add(script)
            start_anew(self, fname, edit)
            return
        jobs = online if _ONLINE in Path(fname).read_text(encoding="utf-8") else offline
        said = jobs.start(fname)
        with benchmarked(said.get(), self.bench_record):
            code = said.get()
        if code:
            raise subprocess.CalledProcessError(code, [sys.executable, fname])

    PythonScript.execute_script = execute_script
    sys.argv = ["snakemake", *arguments]
    snakemake(list(arguments))


class _Jobs:
    """Starts a fork for each job, off a process without threads."""

    def __init__(self, online: bool, beside: "_Jobs | None" = None) -> None:
        self._channel, theirs = _forks.Pipe()
        if os.fork() == 0:
            try:
                for other in (self, beside):
                    if other is not None:
                        other._channel.close()
                _fork_jobs(theirs, online)
            finally:
                os._exit(0)  # this copy of the caller ends here
        theirs.close()
        self._said: dict[str, queue.SimpleQueue] = {}
        self._lock = threading.Lock()
        self._listening: threading.Thread | None = None

    def start(self, path: str) -> queue.SimpleQueue:
        """Run a script; what is returned gets the number of its process, then its exit code."""
        said = self._said[path] = queue.SimpleQueue()
        with self._lock:
            if self._listening is None:
                self._listening = threading.Thread(target=self._listen, daemon=True)
                self._listening.start()
            self._channel.send((path, str(Path.cwd())))
        return said

    def _listen(self) -> None:
        with suppress(EOFError, OSError):
            while True:
                path, number = self._channel.recv()
                self._said[path].put(number)
        for said in self._said.values():  # killed: so are its jobs, or they are nobody's
            said.put(-9)
            said.put(-9)


def _fork_jobs(channel: Connection, online: bool) -> None:
    """Start a fork for each script whose path arrives, until there is no Snakemake to ask.

    Jobs of a Snakemake that was killed go on.
    """
    jobs = {}
    while True:
        for ready in wait([channel, *jobs]):
            if ready is not channel:
                path, process = jobs.pop(ready)
                process.join()
                with suppress(BrokenPipeError):
                    channel.send((path, process.exitcode))
                continue
            try:
                path, cwd = channel.recv()
            except (EOFError, ConnectionResetError):
                return
            if not online and "transformers" not in sys.modules:
                os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
                no_bars_in_logs()
                _import_offline()
            process = _forks.Process(target=_run_script, args=(path, cwd, channel))
            process.start()
            jobs[process.sentinel] = path, process
            channel.send((path, process.pid))


def _run_script(path: str, cwd: str, channel: Connection) -> None:
    """Run a script of a job as ``python path`` does in ``cwd``."""
    channel.close()
    os.chdir(cwd)
    sys.argv = [path]
    sys.path.insert(0, str(Path(path).parent))
    runpy.run_path(path, run_name="__main__")


def main() -> None:
    """Run Snakemake with the arguments of this process."""
    if sys.argv[1:2] == ["--fork"]:
        _fork_runs(int(sys.argv[2]))
    else:
        _prepare()
        _snakemake(sys.argv[1:])


if __name__ == "__main__":
    main()
