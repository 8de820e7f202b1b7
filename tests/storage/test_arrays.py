"""Named arrays: they are read as written, byte for byte, and never as a pickle."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from steering_core.errors import StorageError
from steering_core.storage.arrays import load_arrays, save_arrays
from steering_core.storage.files import read_json

KINDS = [np.float64, np.float32, np.int64, np.int32, np.uint8, np.bool_]
stored = st.sampled_from(KINDS).flatmap(
    lambda kind: arrays(kind, array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
)


@given(st.dictionaries(st.from_regex(r"[a-z.]{1,8}", fullmatch=True), stored, max_size=4))
def test_round_trip(tmp_path_factory, values: dict[str, np.ndarray]):
    path = tmp_path_factory.mktemp("arrays") / "a.safetensors"
    save_arrays(path, values, {"n": len(values)})
    found, metadata = load_arrays(path)
    assert metadata == {"n": len(values)}
    assert set(found) == set(values)
    for name, value in values.items():
        assert found[name].dtype == value.dtype
        assert found[name].shape == value.shape
        np.testing.assert_array_equal(found[name], value)


def test_layout_and_byte_order_do_not_matter(tmp_path: Path):
    grid = np.arange(12.0).reshape(3, 4)
    save_arrays(tmp_path / "a", {"t": grid.T, "s": grid[:, ::2], "big": np.arange(3, dtype=">i4")})
    found, metadata = load_arrays(tmp_path / "a")
    np.testing.assert_array_equal(found["t"], grid.T)
    np.testing.assert_array_equal(found["s"], grid[:, ::2])
    assert found["big"].tolist() == [0, 1, 2]
    assert metadata == {}


def test_the_same_content_gives_the_same_bytes(tmp_path: Path):
    # Across processes: safetensors does not keep the order of several header entries.
    code = (
        "import sys, numpy as np\n"
        "from steering_core.storage.arrays import save_arrays\n"
        "keys = sys.argv[2].split(',')\n"
        "save_arrays(sys.argv[1], {k: np.arange(3.0) for k in keys}, {k: k for k in keys})\n"
    )
    root = Path(__file__).resolve().parents[2]
    keys = list("abcdefghijkl")
    written = set()
    for i in range(3):
        random.Random(i).shuffle(keys)
        path = tmp_path / str(i)
        subprocess.run(
            [sys.executable, "-c", code, path, ",".join(keys)],
            cwd=root,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": str(i)},
        )
        written.add(path.read_bytes())
    assert len(written) == 1


@given(st.integers(0, 400))
def test_a_truncated_file_is_damaged(tmp_path_factory, length: int):
    path = tmp_path_factory.mktemp("cut") / "a.safetensors"
    save_arrays(path, {"x": np.arange(40.0)})
    whole = path.read_bytes()
    path.write_bytes(whole[: min(length, len(whole) - 1)])
    with pytest.raises(StorageError, match=r"damaged.*delete it"):
        load_arrays(path)


@pytest.mark.parametrize("content", [b"", b"\x80\x04N.", b"\xff" * 64, b"PAR1" * 8])
def test_another_kind_of_file_is_damaged(tmp_path: Path, content: bytes):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(StorageError, match="damaged"):
        load_arrays(tmp_path / "a")


def test_a_missing_file_says_what_to_run(tmp_path: Path):
    with pytest.raises(StorageError, match="does not exist: run the stage"):
        load_arrays(tmp_path / "a")


def test_objects_are_refused_and_leave_nothing_behind(tmp_path: Path):
    with pytest.raises(Exception, match="object"):
        save_arrays(tmp_path / "a", {"x": np.array([{"any": "thing"}], dtype=object)})
    assert list(tmp_path.iterdir()) == []


def test_no_module_of_the_package_pickles():
    package = Path(__file__).resolve().parents[2] / "steering_core"
    words = ("import pickle", "_pickle(", "allow_pickle", "joblib", "torch.save(", "torch.load(")
    found = [
        (path.name, word)
        for path in package.rglob("*.py")
        for word in words
        if word in path.read_text(encoding="utf-8")
    ]
    assert found == []


def test_read_json(tmp_path: Path):
    path = tmp_path / "a.json"
    with pytest.raises(StorageError, match="does not exist: run the stage"):
        read_json(path)
    for damaged in (b"", b'{"a": 1', b"\xff\xfe"):
        path.write_bytes(damaged)
        with pytest.raises(StorageError, match="damaged"):
            read_json(path)
    path.write_text(json.dumps({"a": [1]}))
    assert read_json(path) == {"a": [1]}
