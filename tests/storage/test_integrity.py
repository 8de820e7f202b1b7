"""A seal tells a file or directory from every other content."""

import pytest

from steering_core.errors import StorageError
from steering_core.storage.integrity import check_seal, content_digest, seal, seal_of


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
