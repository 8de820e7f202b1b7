"""A seal tells a file or directory from every other content; files made once are kept by it."""

from pathlib import Path

import pytest

from steering_core.errors import StorageError
from steering_core.storage.files import write_text
from steering_core.storage.integrity import (
    check_seal,
    content_digest,
    make_once,
    record_of,
    seal,
    seal_of,
)


def test_file(tmp_path):
    path = tmp_path / "a.parquet"
    path.write_bytes(b"content")
    assert not check_seal(path)
    seal(path)
    assert seal_of(path).name == ".a.parquet.sha256" and check_seal(path)
    path.write_bytes(b"Content")
    with pytest.raises(StorageError, match=r"a\.parquet is not what its stage wrote"):
        check_seal(path)
    seal(path)
    assert check_seal(path)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "model"
    (folder / "inner").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "inner" / "weights").write_bytes(b"\1\2")
    return folder


def test_directory_by_names_and_contents(folder):
    seal(folder)
    assert check_seal(folder)
    (folder / ".snakemake_timestamp").touch()  # the workflow's own mark, put there afterwards
    assert check_seal(folder)
    first = content_digest(folder)
    (folder / "inner" / "weights").rename(folder / "inner" / "weight")
    renamed = content_digest(folder)
    (folder / "inner" / "weight").write_bytes(b"\1\3")
    assert len({first, renamed, content_digest(folder)}) == 3
    with pytest.raises(StorageError, match="model is not what its stage wrote"):
        check_seal(folder)


def test_a_seal_outlives_no_file(folder):
    seal(folder / "config.json")
    (folder / "config.json").unlink()
    with pytest.raises(StorageError, match="does not exist"):
        check_seal(folder / "config.json")


class Maker:
    """Writes a text and counts how often."""

    def __init__(self, text: str = "made"):
        self.text, self.times = text, 0

    def __call__(self, path: Path) -> None:
        self.times += 1
        write_text(path, self.text)


def test_a_file_is_made_once_for_what_it_is_made_from(tmp_path):
    path, make = tmp_path / "deep" / "file", Maker()
    assert make_once(path, {"a": 1, "b": [2]}, make)
    assert not make_once(path, {"b": [2], "a": 1}, make)
    assert make.times == 1
    make.text = "other"
    assert make_once(path, {"a": 2, "b": [2]}, make) and path.read_text() == "other"
    assert make_once(path, {"a": 1, "b": [2]}, make)  # only the latest is kept
    assert make.times == 3


@pytest.mark.parametrize("damage", ["content", "gone", "record", "no record"])
def test_what_is_damaged_or_gone_is_made_again(tmp_path, damage):
    path, make = tmp_path / "file", Maker()
    make_once(path, {}, make)
    if damage == "content":
        path.write_text("mad")
    elif damage == "gone":
        path.unlink()
    elif damage == "record":
        record_of(path).write_bytes(b"\xff")
    else:
        record_of(path).unlink()
    assert make_once(path, {}, make) and path.read_text() == "made"
    assert not make_once(path, {}, make)


def test_a_killed_job_leaves_no_record_of_a_file_that_it_did_not_complete(tmp_path):
    path = tmp_path / "file"
    make_once(path, {"a": 1}, Maker("first"))

    def killed(path: Path) -> None:
        write_text(path, "second")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_once(path, {"a": 2}, killed)
    for source in ({"a": 1}, {"a": 2}):
        make = Maker("third")
        assert make_once(path, source, make) and make.times == 1
        record_of(path).unlink()
    with pytest.raises(ValueError, match="JSON"):
        make_once(path, {"a": float("nan")}, Maker())
