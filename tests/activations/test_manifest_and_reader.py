"""Parts become one cache only if they belong together; damage never passes for data."""

import json

import numpy as np
import pytest

from steering_core.activations.manifest import origin, write_manifest
from steering_core.activations.reader import ActivationCache
from steering_core.errors import StorageError

HOOK = "blocks.0.hook_resid_pre"


@pytest.fixture
def two(tmp_path, write_part):
    """Two good parts and their values."""
    values = write_part(tmp_path / "a.parquet", [["e1", "e5"], ["e3"]])
    values |= write_part(tmp_path / "b.parquet", [["e2"], ["e4", "e0"]], seed=1)
    return [tmp_path / "a.parquet", tmp_path / "b.parquet"], values


def test_manifest_says_what_the_parts_say(two, tmp_path):
    parts, _ = two
    write_manifest(parts, tmp_path / "manifest.json", expected_rows=6)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert [(p["file"], p["rows"]) for p in manifest["parts"]] == [
        ("a.parquet", 3),
        ("b.parquet", 3),
    ]
    assert manifest["rows"] == 6 and manifest["model"] == {"dtype": "f4"}
    assert ActivationCache(tmp_path / "manifest.json").sites == [HOOK]


def test_reader_aligns_by_id(two, tmp_path):
    parts, values = two
    write_manifest(parts, tmp_path / "manifest.json", expected_rows=6)
    cache = ActivationCache(tmp_path / "manifest.json")
    for wanted in (["e0", "e1", "e2", "e3", "e4", "e5"], ["e4", "e1"], ["e3"]):
        np.testing.assert_array_equal(
            cache.matrix(HOOK, wanted), np.stack([values[name] for name in wanted])
        )
    names = [name for batch, _ in cache.batches(HOOK) for name in batch]
    assert names == ["e1", "e5", "e3", "e2", "e4", "e0"]


def test_what_is_not_cached_is_an_error(two, tmp_path):
    parts, _ = two
    write_manifest(parts, tmp_path / "manifest.json", expected_rows=6)
    cache = ActivationCache(tmp_path / "manifest.json")
    with pytest.raises(StorageError, match="e9 is not in the cache"):
        cache.matrix(HOOK, ["e1", "e9"])
    with pytest.raises(StorageError, match="hook_resid_post is not cached"):
        cache.matrix("blocks.0.hook_resid_post", ["e1"])


@pytest.mark.parametrize("expected", [5, 7])
def test_missing_or_extra_rows(two, tmp_path, expected):
    with pytest.raises(StorageError, match=f"has 6 rows, {expected} were expected"):
        write_manifest(two[0], tmp_path / "m.json", expected_rows=expected)
    assert not (tmp_path / "m.json").exists()


@pytest.mark.parametrize("header", [{"model": {"dtype": "f2"}}, {"sae_revision": "x"}])
def test_parts_of_another_run(tmp_path, write_part, header):
    write_part(tmp_path / "a.parquet", [["e1"]])
    write_part(tmp_path / "b.parquet", [["e2"]], **header)
    with pytest.raises(StorageError, match=rf"b\.parquet differs .*{next(iter(header))}"):
        write_manifest(
            [tmp_path / "a.parquet", tmp_path / "b.parquet"], tmp_path / "m.json", expected_rows=2
        )


RESOURCES = {"model": {"dtype": "f4"}, "saes": [{"hook_name": HOOK}], "sae_revision": "a"}


def test_a_cache_of_other_texts_is_refused(tmp_path, write_part):
    resources = {**RESOURCES, "versions": {}}
    examples = tmp_path / "examples.parquet"
    examples.write_bytes(b"the texts")
    made_from = origin(resources, examples, max_tokens=16)
    write_part(tmp_path / "a.parquet", [["e1"]], **made_from)
    path = tmp_path / "m.json"
    with pytest.raises(StorageError, match=r"a\.parquet.*: max_tokens is 16, 32 is expected"):
        write_manifest([tmp_path / "a.parquet"], path, 1, origin(resources, examples, 32))
    write_manifest([tmp_path / "a.parquet"], path, 1, made_from)
    ActivationCache(path, resources, examples)
    examples.write_bytes(b"other texts of the same names")
    with pytest.raises(StorageError, match=r"m\.json was made from something else: examples is"):
        ActivationCache(path, resources, examples)
    with pytest.raises(StorageError, match=r"a\.parquet.*: examples is"):
        write_manifest([tmp_path / "a.parquet"], path, 1, origin(resources, examples, 16))


@pytest.mark.parametrize("groups", [[["e1", "e1", "e0"]], [["e1", "e0"], ["e1", "e2"]]])
def test_a_matrix_has_no_room_for_several_positions_of_an_example(groups, tmp_path, write_part):
    """They may lie in one row group or in two; which of them is meant nobody has said."""
    rows = [name for group in groups for name in group]
    first = write_part(tmp_path / "a.parquet", groups[:1], positions=range(len(groups[0])))
    parts = [tmp_path / "a.parquet"]
    if len(groups) > 1:
        write_part(tmp_path / "b.parquet", groups[1:], positions=[7, 8])
        parts.append(tmp_path / "b.parquet")
    write_manifest(parts, tmp_path / "m.json", expected_rows=len(rows))
    cache = ActivationCache(tmp_path / "m.json")
    with pytest.raises(StorageError, match="several positions of an example"):
        cache.matrix(HOOK, ["e0", "e1"])
    np.testing.assert_array_equal(cache.matrix(HOOK, ["e0"])[0], first["e0"])
