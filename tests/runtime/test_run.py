"""A lock goes once every run that may hold it is dead; a failed run says what failed.

After a failed run the user is told which log ended how, in the error's own words.
"""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from steering_core.errors import ConfigError
from steering_core.runtime.job import log_to
from steering_core.runtime.run import explain_failures

ROOT = Path(__file__).resolve().parents[2]
RUN = """
import sys
from pathlib import Path
from steering_core.runtime.run import take_over

print(take_over(Path(sys.argv[1])), flush=True)
input()
"""


@pytest.fixture
def begin(tmp_path):
    """Start a run in ``tmp_path`` and return it, with whether it removed the locks."""
    started: list[subprocess.Popen] = []

    def start() -> tuple[subprocess.Popen, bool]:
        process = subprocess.Popen(
            [sys.executable, "-c", RUN, str(tmp_path)],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(process)
        return process, process.stdout.readline() == "True\n"

    yield start
    for process in started:
        process.kill()
        process.wait()


def lock(folder: Path) -> Path:
    path = folder / "locks" / "0.input.lock"
    path.parent.mkdir(exist_ok=True)
    path.write_text("results/a\n")
    return path


def test_the_lock_of_a_killed_run_goes(tmp_path, begin):
    first, removed = begin()
    assert not removed
    held = lock(tmp_path)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert begin()[1] and not held.exists()


def test_the_lock_of_a_living_run_stays(tmp_path, begin):
    first, _ = begin()
    held = lock(tmp_path)
    second, removed = begin()
    assert not removed and held.exists()
    second.communicate("\n")  # ends, and with it the note of neither
    assert not begin()[1] and held.exists()
    first.kill()
    first.wait()


def test_a_lock_of_unknown_owner_stays(tmp_path, begin):
    first, _ = begin()
    first.communicate("\n")  # ended in peace, so the next lock is none of its
    held = lock(tmp_path)
    assert not begin()[1] and held.exists()


def test_a_run_on_another_machine_may_be_alive(tmp_path, begin):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "another").write_text("running\n")
    first, _ = begin()
    held = lock(tmp_path)
    first.kill()
    first.wait()
    assert not begin()[1] and held.exists()
    (tmp_path / "runs" / "another").write_text("")


def workflow_log(tmp_path: Path, *logs: Path) -> Path:
    """Return the log of Snakemake 9.27 for jobs that failed, alone and in a group."""
    lines = ["localrule fetch:", f"    log: {tmp_path / 'started.log'}", "Error in rule fetch:"]
    lines += [f"    log: {log} (check log file(s) for error details)" for log in logs]
    lines += [f"            log: {logs[0]} (check log file(s) for error details)"]
    path = tmp_path / "snakemake.log"
    path.write_text("\n".join(lines) + "\n")
    return path


def failed_job(path: Path, error: Exception) -> Path:
    with pytest.raises((SystemExit, type(error))), log_to(path):
        raise error
    return path


def test_one_line_a_failed_job(tmp_path: Path):
    (tmp_path / "started.log").write_text("2026-01-01 00:00:00,000 ERROR root: not this one\n")
    ours = failed_job(tmp_path / "ours.log", ConfigError("layer: 12 is out of range"))
    other = failed_job(tmp_path / "other.log", ZeroDivisionError("of nothing"))
    killed = tmp_path / "generate-qp_optimal.log"
    killed.write_text("2026-01-01 00:00:00,000 INFO root: caching\n")
    lines = explain_failures([workflow_log(tmp_path, ours, other, killed)])
    assert lines[:2] == [
        f"{ours}: layer: 12 is out of range",
        f"{other}: the job failed: ZeroDivisionError: of nothing",
    ]
    assert lines[2].startswith(
        f"{killed}: ended without an error message: it was killed, or ran out of memory or time. "
        "If it was memory, lower batch_prompts or new_tokens or max_tokens, or "
    )


def test_a_log_that_is_not_there_is_no_second_failure(tmp_path: Path):
    gone = tmp_path / "gone.log"
    assert explain_failures([workflow_log(tmp_path, gone)])[0].startswith(f"{gone}: ended without")
    assert explain_failures([gone]) == []


def test_nothing_failed(tmp_path: Path):
    (tmp_path / "snakemake.log").write_text("rule a:\n    log: results/a.log\n")
    assert explain_failures([tmp_path / "snakemake.log"]) == []
