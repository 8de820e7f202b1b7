"""SIGKILL at any moment, then the same command again: the files of an uninterrupted run."""

import base64
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
from ledger import record
from tiny_demo import (
    TARGETS,
    command,
    copy_of,
    damaged,
    environment,
    finished_demo,
    new_directory,
    run,
)

#: Kills of one run; `make stress` asks for more.
KILLS = int(os.environ.get("STEERING_KILLS", "6"))
#: The trained world stays, to spend the time on the stages of the pipeline.
PIPELINE = (
    *(
        "resources.json",
        "dataset.parquet",
        "examples.*",
        "activations",
        "features.parquet",
        "decoder.*",
    ),
    *("layer.json", "probe*", "evaluation_probe*", "correlation*", "directions*", "path*"),
    *("solutions*", "generations", "divergence", "judged*", "pareto*", "/tiny_choice"),
)


def children(process: int) -> list[int]:
    """Processes that descend from ``process``, the nearest first."""
    found, waiting = [], [process]
    while waiting:
        parent = waiting.pop(0)
        try:
            tasks = list(Path(f"/proc/{parent}/task").iterdir())
            below = [int(c) for t in tasks for c in (t / "children").read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue
        found += below
        waiting += below
    return found


def kill(process: subprocess.Popen, who: str) -> None:
    """Kill the workflow with its jobs, the workflow alone, or the running jobs alone."""
    jobs = children(process.pid)
    if not jobs:  # between two of them
        who = "workflow"
    victims = {"all": [process.pid, *jobs], "workflow": [process.pid], "jobs": jobs}[who]
    for victim in victims:
        try:
            os.kill(victim, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait(600)
    # Jobs that outlive their workflow go on writing, as on a machine where only it was killed.
    deadline = time.monotonic() + 60
    while who == "workflow" and time.monotonic() < deadline and any(map(is_python, jobs)):
        time.sleep(0.5)


def is_python(process: int) -> bool:
    try:
        return b"python" in Path(f"/proc/{process}/cmdline").read_bytes()
    except FileNotFoundError:
        return False


def finished_parts(directory: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of every shard whose job has ended, by Snakemake's own records."""
    marks = directory / ".snakemake" / "incomplete"
    running = [base64.b64decode(mark.name).decode() for mark in marks.rglob("*") if mark.is_file()]
    parts = (directory / "results" / "demo" / "activations").glob("part-*.parquet")
    return {
        part.name: (part.stat().st_ino, part.stat().st_mtime_ns)
        for part in parts
        if str(part.relative_to(directory)) not in running
    }


@pytest.mark.timeout(1200 + 120 * KILLS)
def test_final_files_are_those_of_an_uninterrupted_run(tmp_path):
    expected = finished_demo()
    if os.environ.get("STEERING_KILLS_FROM_NOTHING"):
        directory = new_directory(tmp_path / "demo")
    else:
        directory = copy_of(expected, tmp_path / "demo", PIPELINE)
    seed = int(os.environ.get("STEERING_SEED", "20240601"))
    chance = random.Random(seed)
    kills = 0
    while True:
        before = finished_parts(directory)
        with (tmp_path / f"run-{kills}.log").open("w") as log:
            process = subprocess.Popen(
                # The number of cores must not show in any file.
                command(directory, *TARGETS, cores=chance.choice([1, 2])),
                cwd=directory,
                env=environment(),
                stdout=log,
                stderr=log,
            )
            try:
                process.wait(chance.uniform(3, 15) if kills < KILLS else 600)
            except subprocess.TimeoutExpired:
                kill(process, chance.choice(["all", "all", "workflow", "jobs"]))
                kills += 1
            finally:
                if process.poll() is None:
                    kill(process, "all")
        after = finished_parts(directory)
        # A shard that was there before this attempt is the same file after it.
        half_done = {name for name in before if after.get(name) != before[name]}
        assert not half_done, f"recomputed: {half_done}"
        if process.returncode == 0:
            break
        assert run(directory, "--unlock").returncode == 0
    assert damaged(directory) == []
    assert not list(directory.rglob("results/**/.*.tmp"))
    record("SIGKILL of workflow or jobs", injected=kills, survived=kills, bytes_lost=0)
    assert kills > 0


def test_a_run_that_was_finished_is_left_alone(tmp_path):
    directory = copy_of(finished_demo(), tmp_path / "demo")
    done = run(directory, *TARGETS, "--dry-run")
    assert "Nothing to be done" in done.stdout + done.stderr
