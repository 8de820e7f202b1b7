"""Parts become one cache only if they belong together; damage never passes for data."""

import errno
import json
import logging

import numpy as np
import pyarrow.parquet as pq
import pytest

from steering_core.activations.manifest import damage_of, origin, write_manifest
from steering_core.activations.reader import ActivationCache
from steering_core.errors import StorageError
from steering_core.runtime.machine import running_versions

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
    resources = RESOURCES
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


def test_the_manifest_names_the_pinned_dataset(tmp_path, write_part):
    """And a cache of another revision of it is refused, if it was copied here from elsewhere."""
    resources = {**RESOURCES, "dataset": {"id": "org/rows", "revision": "1" * 40}}
    write_part(tmp_path / "a.parquet", [["e1"]], **origin(resources))
    write_manifest([tmp_path / "a.parquet"], tmp_path / "m.json", 1, origin(resources))
    assert json.loads((tmp_path / "m.json").read_text())["dataset"] == resources["dataset"]
    resources["dataset"]["revision"] = "2" * 40
    with pytest.raises(StorageError, match=r"m\.json was made .*: dataset\.revision is '1111"):
        ActivationCache(tmp_path / "m.json", resources)


def test_parts_of_two_versions_of_a_library_are_no_cache(tmp_path, write_part, monkeypatch):
    """A library was upgraded while the cache was half done."""
    parts = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    write_part(parts[0], [["e1"]], **origin(RESOURCES))
    now = running_versions()
    monkeypatch.setattr(
        "steering_core.activations.manifest.running_versions", lambda: {**now, "torch": "9.9"}
    )
    write_part(parts[1], [["e2"]], **origin(RESOURCES))
    told = rf"b\.parquet .* torch is '9.9', '{now['torch']}' .* other than .*'torch': '9.9'"
    with pytest.raises(StorageError, match=told):
        write_manifest(parts, tmp_path / "m.json", 2, origin(RESOURCES))


def test_a_cache_of_older_libraries_is_read_with_a_warning(tmp_path, write_part, caplog):
    made_from = origin(RESOURCES)
    made_from["versions"] = {**made_from["versions"], "torch": "0.1"}
    write_part(tmp_path / "a.parquet", [["e1"]], **made_from)
    with caplog.at_level(logging.WARNING):
        write_manifest([tmp_path / "a.parquet"], tmp_path / "m.json", 1, origin(RESOURCES))
        assert (
            ActivationCache(tmp_path / "m.json", RESOURCES).manifest["versions"]["torch"] == "0.1"
        )
    assert "m.json was made with torch 0.1 (now" in caplog.text


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_trouble_of_the_file_system_is_no_damage(number):
    with pytest.raises(OSError, match="trouble") as caught, damage_of("a.parquet"):
        raise OSError(number, "trouble")
    assert caught.value.errno == number


@pytest.mark.parametrize("groups", [([["e1"]], [["e1"]]), ([["e1", "e1"]],), ([["e1"], ["e1"]],)])
def test_rows_that_are_there_twice(tmp_path, write_part, groups):
    parts = [tmp_path / f"{i}.parquet" for i in range(len(groups))]
    for part, group in zip(parts, groups, strict=True):
        write_part(part, group)
    with pytest.raises(StorageError, match=rf"{parts[-1].name} has rows that are there twice"):
        write_manifest(parts, tmp_path / "m.json", expected_rows=2)


@pytest.mark.parametrize("content", [None, b"", b"PAR1 not a parquet file PAR1"])
def test_missing_or_foreign_part(tmp_path, content):
    if content is not None:
        (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(StorageError, match="damaged or missing"):
        write_manifest([tmp_path / "a.parquet"], tmp_path / "m.json", expected_rows=1)


def test_any_flipped_byte_is_found_by_the_reader(two, tmp_path):
    """Page checksums leave the headers and the footer uncovered; the manifest's digest does not."""
    parts, _ = two
    write_manifest(parts, tmp_path / "m.json", expected_rows=6)
    good = parts[0].read_bytes()
    for place in range(0, len(good), 7):
        bad = bytearray(good)
        bad[place] ^= 0x80
        parts[0].write_bytes(bad)
        with pytest.raises(StorageError, match=r"a\.parquet"):
            list(ActivationCache(tmp_path / "m.json").batches(HOOK))


def test_a_truncated_or_lost_part_is_found_by_the_reader(two, tmp_path):
    parts, _ = two
    write_manifest(parts, tmp_path / "m.json", expected_rows=6)
    parts[1].write_bytes(parts[1].read_bytes()[:-50])
    with pytest.raises(StorageError, match=r"b\.parquet"):
        ActivationCache(tmp_path / "m.json").matrix(HOOK, ["e2"])
    parts[1].unlink()
    with pytest.raises(StorageError, match=r"b\.parquet.*missing"):
        ActivationCache(tmp_path / "m.json").matrix(HOOK, ["e2"])


def test_damage_after_the_check_is_found_by_page_checksums(two, tmp_path):
    parts, _ = two
    write_manifest(parts, tmp_path / "m.json", expected_rows=6)
    cache = ActivationCache(tmp_path / "m.json")
    assert len(list(cache.batches(HOOK))) == 4
    column = pq.ParquetFile(parts[0]).metadata.row_group(0).column(4)
    bad = bytearray(parts[0].read_bytes())
    bad[column.data_page_offset + column.total_compressed_size - 3] ^= 0xFF
    parts[0].write_bytes(bad)
    with pytest.raises(StorageError, match=r"a\.parquet is damaged"):
        list(cache.batches(HOOK))


def test_damage_before_the_manifest_is_found_too(two, tmp_path):
    """Whatever a flip does to pyarrow, it is one clear error or not in what the manifest reads."""
    parts, _ = two
    good = parts[0].read_bytes()
    refused = 0
    for place in range(0, len(good), 7):
        bad = bytearray(good)
        bad[place] ^= 0x80
        parts[0].write_bytes(bad)
        try:
            write_manifest(parts, tmp_path / "m.json", expected_rows=6)
        except StorageError:
            refused += 1
    assert refused > 50


def test_no_manifest(tmp_path):
    with pytest.raises(StorageError, match="does not exist"):
        ActivationCache(tmp_path / "manifest.json")


def test_a_position_is_counted_from_either_end(tmp_path, write_part):
    """The rows of an example may go on in the next row group."""
    write_part(tmp_path / "a.parquet", [["e1", "e1"], ["e1", "e0"]], positions=[[0, 1], [2, 0]])
    write_part(tmp_path / "b.parquet", [["e2", "e2"]], positions=[[0, 1]], seed=1)
    parts = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    write_manifest(parts, tmp_path / "m.json", expected_rows=6)
    cache = ActivationCache(tmp_path / "m.json")
    stored = {
        (row["example_id"], row["position"]): np.array(row[HOOK], dtype="float32")
        for part in parts
        for row in pq.read_table(part).to_pylist()
    }
    ids = ["e2", "e0", "e1"]
    for position, expected in ((-1, [1, 0, 2]), (0, [0, 0, 0])):
        np.testing.assert_array_equal(
            cache.matrix(HOOK, ids, position),
            [stored[pair] for pair in zip(ids, expected, strict=True)],
        )
    np.testing.assert_array_equal(cache.matrix(HOOK, ["e1"], -3), [stored["e1", 0]])
    assert [names for names, _ in cache.batches(HOOK, 1)] == [["e1"], ["e2"]]
    with pytest.raises(StorageError, match=r"e0 .* position -2.*cached_positions: all"):
        cache.matrix(HOOK, ["e1", "e0"], -2)


def test_an_example_in_two_places_is_refused(tmp_path, write_part):
    """Which of them is meant nobody can say."""
    write_part(tmp_path / "a.parquet", [["e1", "e0"]])
    write_part(tmp_path / "b.parquet", [["e1"]], positions=[[7]])
    write_manifest([tmp_path / "a.parquet", tmp_path / "b.parquet"], tmp_path / "m.json", 3)
    cache = ActivationCache(tmp_path / "m.json")
    with pytest.raises(StorageError, match="two places"):
        cache.matrix(HOOK, ["e0", "e1"])
