"""Files that are made once, as long as they are what they were made from."""

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from steering_core.storage.files import write_text
from steering_core.storage.once import (
    make_once,
    one_below_the_other,
    record_of,
    table_made_once,
)


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


def test_the_table_of_a_method_is_made_once_and_says_whose_it_is(tmp_path):
    made = []

    def make():
        made.append(1)
        return pd.DataFrame({"x": [1, 2]})

    first = table_made_once(tmp_path, "a", {"code": "c"}, make)
    assert first["method"].to_pylist() == ["a", "a"]
    assert table_made_once(tmp_path, "a", {"code": "c"}, make).equals(first) and len(made) == 1
    table_made_once(tmp_path, "a", {"code": "d"}, make)
    assert len(made) == 2
    own = pd.DataFrame({"y": [3.0], "method": ["b"]})
    second = table_made_once(tmp_path, "b", {}, lambda: own)
    assert second.column_names == ["y", "method"]
    whole = one_below_the_other([first, second])
    assert whole["method"].to_pylist() == ["a", "a", "b"]
    assert whole["x"].to_pylist() == [1, 2, None] and whole["y"].to_pylist() == [None, None, 3.0]
    with pytest.raises(pa.ArrowException):
        table_made_once(tmp_path, "c", {}, make, pa.schema([pa.field("x", pa.string())]))
    assert not (tmp_path / "c.parquet").exists()
