"""A file is there completely or not at all, and of the job that claimed it last."""

import ast
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from steering_core.errors import StorageError
from steering_core.storage.files import (
    atomic_directory,
    atomic_path,
    claim_of,
    claimed,
    write_json,
    write_text,
)
from steering_core.storage.integrity import check_seal, seal, seal_of

ROOT = Path(__file__).resolve().parents[2]


class Interrupted(BaseException):
    """Not an Exception, as KeyboardInterrupt is not."""


def test_writes_and_makes_the_folder(tmp_path: Path):
    path = tmp_path / "a" / "b" / "c.txt"
    write_text(path, "één\n")
    assert path.read_bytes() == "één\n".encode()
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, Interrupted, KeyboardInterrupt])
@pytest.mark.parametrize("existed", [True, False])
def test_a_failure_leaves_what_was_there(tmp_path: Path, error: type, existed: bool):
    path = tmp_path / "c.txt"
    if existed:
        path.write_text("old")
    with pytest.raises(error), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise error
    assert [file.name for file in tmp_path.iterdir()] == (["c.txt"] if existed else [])
    assert not existed or path.read_text() == "old"


def test_the_old_file_stays_until_the_block_ends(tmp_path: Path):
    path = tmp_path / "c.txt"
    path.write_text("old")
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.parent == path.parent  # else the rename may not be atomic
    assert path.read_text() == "new"


def test_a_killed_process_leaves_the_old_file(tmp_path: Path):
    path = tmp_path / "c.txt"
    path.write_text("old")
    code = (
        "import os, sys\n"
        "from steering_core.storage.files import atomic_path\n"
        "with atomic_path(sys.argv[1]) as temporary:\n"
        "    temporary.write_text('half')\n"
        "    os._exit(9)\n"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code, path], cwd=root, check=False)
    assert done.returncode == 9
    assert path.read_text() == "old"


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_permissions_follow_the_umask(tmp_path: Path, mask: int):
    before = os.umask(mask)
    try:
        write_text(tmp_path / "file", "x")
        with atomic_directory(tmp_path / "folder") as temporary:
            (temporary / "deep").mkdir(mode=0o700)
            (temporary / "deep" / "inner").write_text("x")
            (temporary / "deep" / "inner").chmod(0o600)  # as safetensors writes
        (tmp_path / "plain").write_text("x")
        assert os.umask(mask) == mask  # asking for the umask leaves it as it is
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes["file"] == modes["plain"] == 0o666 & ~mask
    assert modes["folder"] == 0o777 & ~mask
    inner = tmp_path / "folder" / "deep" / "inner"
    assert stat.S_IMODE(inner.stat().st_mode) == 0o666 & ~mask
    assert stat.S_IMODE(inner.parent.stat().st_mode) == 0o777 & ~mask


def test_directory_replaces_the_old_one_completely(tmp_path: Path):
    path = tmp_path / "folder"
    path.mkdir()
    (path / "stale").write_text("x")
    with atomic_directory(path) as temporary:
        (temporary / "deep").mkdir()
        (temporary / "deep" / "fresh").write_text("y")
        assert (path / "stale").exists()
    assert [file.name for file in path.iterdir()] == ["deep"]
    assert (path / "deep" / "fresh").read_text() == "y"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, Interrupted])
def test_a_failed_directory_leaves_what_was_there(tmp_path: Path, error: type):
    path = tmp_path / "folder"
    path.mkdir()
    (path / "old").write_text("x")
    with pytest.raises(error), atomic_directory(path) as temporary:
        (temporary / "half").write_text("y")
        raise error
    assert list(tmp_path.iterdir()) == [path]
    assert [file.name for file in path.iterdir()] == ["old"]


def test_json_has_sorted_keys_and_ends_with_a_newline(tmp_path: Path):
    write_json(tmp_path / "a.json", {"b": 1, "a": [None, "ü"]})
    write_json(tmp_path / "b.json", {"a": [None, "ü"], "b": 1})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert text == (tmp_path / "b.json").read_text(encoding="utf-8")
    assert text.endswith("}\n")
    assert json.loads(text) == {"a": [None, "ü"], "b": 1}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float64("nan")])
def test_json_refuses_numbers_that_are_not_finite(tmp_path: Path, value: float):
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"deep": [1.0, {"x": value}]})
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


KILLED = """
import os, signal, sys
from steering_core.storage import files
with getattr(files, sys.argv[1])(sys.argv[2]) as temporary:
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


NEWER = """
import sys
from steering_core.storage.files import write_text
from steering_core.storage.files import claimed
from steering_core.storage.integrity import seal

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


WRITERS = {
    *("to_parquet", "write_table", "ParquetWriter", "write_bytes", "write_text"),
    *("save_file", "save_pretrained", "save_inference_model"),
}
#: Called with the temporary path of their caller; a claim, of which half is as good as a whole;
#: and the note of a run for Snakemake's locks, which is locked itself.
BELOW = {"_background_writer", "_save", "claimed", "save_sae", "take_over"}


def writes(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return isinstance(node, ast.Call) and getattr(node.func, "id", "") == "save_file"
    modes = [a.value for a in node.args if isinstance(a, ast.Constant) and a.value]
    opens = node.func.attr == "open" and any(str(mode)[0] in "wax" for mode in modes)
    to_file = node.func.attr == "to_csv" and node.args
    return node.func.attr in WRITERS or opens or bool(to_file)


def safe(block: ast.AST) -> bool:
    """Return whether files written inside have a temporary path."""
    if isinstance(block, ast.With):
        return any("atomic_" in ast.unparse(item) for item in block.items)
    return isinstance(block, ast.FunctionDef) and block.name in BELOW


def test_nothing_is_written_but_through_here():
    """Every call that writes stands where a temporary path takes the place of the final one."""
    loose, writers = [], set()
    for folder in ("steering_core", "workflow_scripts"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
            inside = {id(node) for block in nodes if safe(block) for node in ast.walk(block)}
            found = [node for node in nodes if writes(node)]
            writers |= {file.relative_to(ROOT).as_posix() for _ in found}
            loose += [
                f"{file.relative_to(ROOT)}:{node.lineno}"
                for node in found
                if id(node) not in inside
            ]
    assert loose == []
    here = {f"steering_core/storage/{name}.py" for name in ("files", "arrays", "parquet")}
    assert here | {"steering_core/activations/cache.py"} <= writers
