"""SIGKILL at any moment, then the same command again: the files of an uninterrupted run."""

import base64
import itertools
import os
import random
import subprocess
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import forked_jobs
import pytest
from ledger import bytes_lost, contents, record
from processes import children, command_line, kill_all
from tiny_demo import (
    PIPELINE,
    TARGETS,
    arguments_of,
    copy_of,
    damaged,
    environment,
    finished_demo,
    new_directory,
)

#: Kills of one run; `make stress` asks for more.
KILLS = int(os.environ.get("STEERING_KILLS", "6"))
#: At most so many stages begin before the next kill.
STAGES = 6


def kill(process: forked_jobs.Running, who: str) -> list[int]:
    """Kill the workflow with its jobs, the workflow alone, or the running jobs alone.

    Returns the jobs that outlive their workflow. They go on writing, as on a machine where only
    it was killed, while the next run makes the same files.
    """
    below = children(process.pid)
    jobs = [job for child in below for job in children(child)]  # forks of the workflow's child
    if not jobs:  # between two of them
        who = "workflow"
    victims = {"all": [process.pid, *below], "workflow": [process.pid], "jobs": jobs}
    kill_all(victims[who])
    process.wait(1800)
    return jobs if who == "workflow" else []


def wait_for_the_end(jobs: list[int]) -> None:
    deadline = time.monotonic() + 600
    while any(map(is_python, jobs)) and time.monotonic() < deadline:
        time.sleep(0.5)


def where(directory: Path) -> str:
    """Whose stages are running."""
    running = half_done(directory)
    if not running:
        return "between two stages"
    return "CorrSteer" if any("corrsteer" in path for path in running) else "the pipeline"


def is_python(process: int) -> bool:
    return b"python" in command_line(process)


def half_done(directory: Path) -> list[str]:
    """Outputs of the jobs that run or were killed, by Snakemake's own records."""
    marks = directory / ".snakemake" / "incomplete"
    return [base64.b64decode(mark.name).decode() for mark in marks.rglob("*") if mark.is_file()]


def begun(directory: Path) -> set[tuple[str, int]]:
    """Logs of the stages; one that begins opens its log anew."""
    found = set()
    for pattern in ("results/*/logs/*.log", "results/models/*/logs/*.log"):
        for log in directory.glob(pattern):
            with suppress(FileNotFoundError):
                found.add((str(log), log.stat().st_ctime_ns))
    return found


def wait_for_a_moment(process: forked_jobs.Running, directory: Path, chance: random.Random) -> None:
    """Wait until a few more stages have begun, and then a little more, or until the run has ended.

    So kills fall on all stages alike, however long each takes, and every attempt gets further.
    """
    stages, pause = chance.randint(1, STAGES), chance.uniform(0, 3)
    before = begun(directory)
    while process.poll() is None:
        if len({name for name, _ in begun(directory) - before}) >= stages:
            with suppress(subprocess.TimeoutExpired):
                process.wait(pause)
            return
        time.sleep(0.05)


def wait_for_a_part(process: forked_jobs.Running, directory: Path) -> None:
    """Wait until a shard of the activations is finished, or the run has ended."""
    while process.poll() is None and not finished_parts(directory):
        time.sleep(0.05)


def finished_parts(directory: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of every shard whose job has ended."""
    running = half_done(directory)
    parts = (directory / "results" / "demo" / "activations").glob("part-*.parquet")
    return {
        part.name: (part.stat().st_ino, part.stat().st_mtime_ns)
        for part in parts
        if str(part.relative_to(directory)) not in running
    }


@pytest.mark.timeout(3600 + 120 * KILLS)
def test_final_files_are_those_of_an_uninterrupted_run(tmp_path):
    expected = finished_demo()
    chance = random.Random(int(os.environ.get("STEERING_SEED", "20240601")))
    from_nothing = bool(os.environ.get("STEERING_KILLS_FROM_NOTHING"))
    kills: Counter[str] = Counter()
    lost = kept = 0
    for attempt in itertools.count():
        place = tmp_path / str(attempt) / "demo"
        directory = new_directory(place) if from_nothing else copy_of(expected, place, PIPELINE)
        kept += finish_in_spite_of_kills(directory, chance, kills)
        lost += bytes_lost(contents(expected / "results"), contents(directory / "results"))
        if kills.total() >= KILLS or lost or not from_nothing:
            break
    for stages, number in kills.items():
        survived = 0 if lost else number
        record(f"SIGKILL: {stages}", injected=number, survived=survived, bytes_lost=lost)
    assert damaged(directory) == []
    assert not [*directory.rglob("results/**/.*.tmp"), *directory.rglob("results/**/.*.claim")]
    assert kills.total() > 1 and kept > 0


def finish_in_spite_of_kills(directory: Path, chance: random.Random, kills: Counter[str]) -> int:
    """Run the workflow again and again until it ends, killed while there are kills left.

    Returns how often a run found a shard that an earlier one had finished, and kept it.
    """
    kept, outlived = 0, []
    while True:
        before = finished_parts(directory)
        with (directory / "run.log").open("a") as log:
            process = forked_jobs.start(
                # The number of cores must not show in any file.
                arguments_of(directory, *TARGETS, cores=chance.choice([1, 2])),
                cwd=directory,
                env=environment(),
                stdout=log,
                stderr=log,
            )
            try:
                if kills.total() < KILLS:
                    wait_for_a_moment(process, directory, chance)
                    if kills.total() == 1:
                        wait_for_a_part(process, directory)
                    if process.poll() is None:
                        place = where(directory)
                        kills[place] += 1
                        number = kills[place]
                        record(f"SIGKILL: {place}", injected=number, survived=0, bytes_lost=0)
                        outlived += kill(process, chance.choice(["all", "all", "workflow", "jobs"]))
                process.wait(1800)
            finally:
                if process.poll() is None:
                    kill(process, "all")
        after = finished_parts(directory)
        # A shard that was there before this attempt is the same file after it.
        changed = {name for name in before if after.get(name) != before[name]}
        assert not changed, f"recomputed: {changed}"
        kept += bool(before)
        if process.returncode == 0:
            wait_for_the_end(outlived)
            return kept
