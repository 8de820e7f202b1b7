"""A file is there completely or not at all."""

import ast
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from steering_core.storage.atomic import atomic_directory, atomic_path, write_json, write_text

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
        "from steering_core.storage.atomic import atomic_path\n"
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
            (temporary / "inner").write_text("x")
        (tmp_path / "plain").write_text("x")
        assert os.umask(mask) == mask  # asking for the umask leaves it as it is
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes["file"] == modes["plain"] == 0o666 & ~mask
    assert modes["folder"] == 0o777 & ~mask


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
def test_json_refuses_what_is_not_a_number(tmp_path: Path, value: float):
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"deep": [1.0, {"x": value}]})
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


WRITERS = {
    *("to_parquet", "write_table", "ParquetWriter", "write_bytes", "write_text"),
    *("save_file", "save_pretrained", "save_inference_model"),
}
#: Called with the temporary path of their caller; a claim, of which half is as good as a whole;
#: and the note of a run for Snakemake's locks, which is locked itself.
BELOW = {"_background_writer", "_save", "claimed", "take_over"}


def writes(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return False
    modes = [a.value for a in node.args if isinstance(a, ast.Constant) and a.value]
    opens = node.func.attr == "open" and any(str(mode)[0] in "wax" for mode in modes)
    to_file = node.func.attr == "to_csv" and node.args
    return node.func.attr in WRITERS or opens or bool(to_file)


def safe(block: ast.AST) -> bool:
    """Whether what is written inside has a temporary path."""
    if isinstance(block, ast.With):
        return any("atomic_" in ast.unparse(item) for item in block.items)
    return isinstance(block, ast.FunctionDef) and block.name in BELOW


def test_nothing_is_written_but_through_here():
    """Every call that writes stands where a temporary path takes the place of the final one."""
    loose, number = [], 0
    for folder in ("steering_core", "workflow_scripts"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
            inside = {id(node) for block in nodes if safe(block) for node in ast.walk(block)}
            found = [node for node in nodes if writes(node)]
            number += len(found)
            loose += [
                f"{file.relative_to(ROOT)}:{node.lineno}"
                for node in found
                if id(node) not in inside
            ]
    assert loose == [] and number > 20
