"""A lock goes once every run that may hold it is dead, and no sooner."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RUN = """
import sys
from pathlib import Path
from steering_core.runtime.locks import take_over

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
