"""The job that claimed an output last is the one whose result stays."""

import subprocess
import sys
from pathlib import Path

import pytest

from steering_core.errors import StorageError
from steering_core.storage.atomic import atomic_directory, write_text
from steering_core.storage.claims import claim_of, claimed
from steering_core.storage.seals import check_seal, seal, seal_of

ROOT = Path(__file__).resolve().parents[2]
NEWER = """
import sys
from steering_core.storage.atomic import write_text
from steering_core.storage.claims import claimed
from steering_core.storage.seals import seal

with claimed([sys.argv[1]]):
    print("claimed", flush=True)
    input()
    write_text(sys.argv[1], "newer")
    seal(sys.argv[1])
"""


@pytest.fixture
def newer(tmp_path):
    """A process that has claimed ``out`` and writes it when told."""

    def begin() -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-c", NEWER, str(tmp_path / "out")],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(process)
        assert process.stdout.readline() == "claimed\n"
        return process

    started: list[subprocess.Popen] = []
    yield begin
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.parametrize("ended", [True, False], ids=["the newer has ended", "it still runs"])
def test_a_job_that_outlived_its_workflow_changes_nothing(tmp_path, newer, ended):
    out = tmp_path / "out"
    with claimed([out]):
        process = newer()
        if ended:
            process.communicate("go\n")
        with pytest.raises(StorageError, match="by a newer job"):
            write_text(out, "older")
        with pytest.raises(StorageError, match="by a newer job"), atomic_directory(out):
            pass
        if not ended:
            out.write_text("of the older, just before")
            with pytest.raises(StorageError, match="by a newer job"):
                seal(out)
            assert not seal_of(out).exists()
    if not ended:
        assert claim_of(out).exists()  # the newer one's
        process.communicate("go\n")
    assert out.read_text() == "newer" and check_seal(out)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.sha256", "out"]


def test_a_job_alone_writes_and_leaves_no_claim(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    claim_of("a/out").parent.mkdir()
    claim_of("a/out").write_text("of a job that was killed")
    with claimed(["a/out", "b/out"]):
        write_text("a/out", "1")
        write_text(tmp_path / "b" / "out", "2")
        seal("a/out")
    assert not list(tmp_path.rglob("*.claim"))
    write_text("a/out", "what nobody claimed")


def test_a_job_that_fails_leaves_no_claim(tmp_path):
    with pytest.raises(ZeroDivisionError), claimed([tmp_path / "out"]):
        _ = 1 / 0
    assert list(tmp_path.iterdir()) == []
