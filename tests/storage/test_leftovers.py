"""What killed processes left is removed by the next writer, what living ones write is not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from steering_core.storage.atomic import atomic_directory, atomic_path

ROOT = Path(__file__).resolve().parents[2]
KILLED = """
import os, signal, sys
from steering_core.storage import atomic
with getattr(atomic, sys.argv[1])(sys.argv[2]) as temporary:
    (temporary / "x" if temporary.is_dir() else temporary).write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("writer", [atomic_path, atomic_directory])
def test_leftovers_of_a_killed_process_go(tmp_path, writer):
    target = tmp_path / "a[b]"
    for _ in range(2):
        subprocess.run(
            [sys.executable, "-c", KILLED, writer.__name__, str(target)], cwd=ROOT, check=False
        )
        assert len(list(tmp_path.iterdir())) == 1 and not target.exists()
    with writer(target) as temporary:
        assert list(tmp_path.iterdir()) == [temporary]
    assert list(tmp_path.iterdir()) == [target]


def test_work_in_progress_stays(tmp_path):
    target = tmp_path / "a"
    with atomic_path(target) as first:
        first.write_text("first")
        with atomic_path(target) as second:
            assert first.exists()
            second.write_text("second")
        assert target.read_text() == "second"
    assert target.read_text() == "first"


def test_only_its_own_leftovers(tmp_path):
    other_file = tmp_path / f".ab.{os.uname().nodename}.999999999.x.tmp"
    other_host = tmp_path / ".a.elsewhere.999999999.x.tmp"
    for path in (other_file, other_host):
        path.write_text("")
    with atomic_path(tmp_path / "a"):
        pass
    assert other_file.exists() and other_host.exists()
