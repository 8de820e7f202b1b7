"""The cache on disk: what is in it, how it is cut, what it refuses."""

import json
import time
from functools import partial
from threading import Semaphore, Thread

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from steering_core.activations import cache as module
from steering_core.activations.cache import (
    _background_writer,
    activation_schema,
    cache_activations,
)
from steering_core.activations.manifest import expected_rows, write_manifest
from steering_core.activations.reader import ActivationCache
from steering_core.config.model import Model, SAESource
from steering_core.errors import DataError
from steering_core.models.language_model import load_language_model
from steering_core.models.residual_stream import edit_residual, last_token_residuals, read_residuals
from steering_core.models.site import Site
from steering_core.models.tokens import WIDTH_STEP, tokenize

SITES = [Site(1, "pre", False, True), Site(3, "post", True, True)]
NAMES = [site.hook_name for site in SITES]
HEADER = {"sites": [{"hook_name": name} for name in NAMES], "model": {"revision": "abc"}}


@pytest.fixture(scope="module")
def examples():
    rng = np.random.default_rng(0)
    texts = [" ".join(f"w{k}" for k in rng.integers(0, 60, n)) for n in rng.integers(1, 12, 23)]
    return pd.DataFrame({"example_id": [f"e{i:02d}" for i in range(23)], "text": texts})


def cache(lm, examples, path, **kwargs):
    settings = {"max_tokens": 10, "batch_tokens": 30, "metadata": HEADER, **kwargs}
    return cache_activations(lm, examples, SITES, path, **settings)


def directly(lm, text, max_tokens=10):
    """Residuals of one text at both sites as they should be stored, every position."""
    (row,) = tokenize(lm.tokenizer, [text], prepend_bos=True, max_tokens=max_tokens)
    ids = torch.tensor([row])
    raw = read_residuals(lm, SITES, ids, torch.ones_like(ids, dtype=torch.bool))
    first = raw[NAMES[0]][0].numpy()
    second = raw[NAMES[1]][0].numpy()
    return row, {NAMES[0]: first, NAMES[1]: second - second.mean(axis=1, keepdims=True)}


def test_schema_is_of_fixed_size_lists(tiny, examples, tmp_path):
    assert cache(tiny, examples, tmp_path / "a.parquet") == 23
    schema = pq.read_schema(tmp_path / "a.parquet")
    assert schema.names == ["example_id", "position", "token_id", "mask", *NAMES]
    for name in NAMES:
        assert pa.types.is_fixed_size_list(schema.field(name).type)
        assert schema.field(name).type.list_size == 32
        assert schema.field(name).type.value_type == pa.float32()
    assert json.loads(schema.metadata[b"steering_core"]) == HEADER
    assert schema.equals(activation_schema(SITES, 32, HEADER), check_metadata=True)
    file = pq.ParquetFile(tmp_path / "a.parquet").metadata.row_group(0)
    assert {file.column(i).compression for i in range(file.num_columns)} == {"ZSTD"}


def test_last_token_values(tiny, examples, tmp_path):
    cache(tiny, examples, tmp_path / "a.parquet")
    table = pq.read_table(tmp_path / "a.parquet").to_pylist()
    assert sorted(row["example_id"] for row in table) == examples["example_id"].tolist()
    texts = dict(zip(examples["example_id"], examples["text"], strict=True))
    for row in table:
        tokens, residuals = directly(tiny, texts[row["example_id"]])
        assert row["position"] == len(tokens) - 1 and row["token_id"] == tokens[-1]
        assert row["mask"] is True
        for name in NAMES:
            np.testing.assert_allclose(row[name], residuals[name][-1], rtol=1e-4, atol=1e-4)


def test_what_waits_for_the_writer_is_bounded_in_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "QUEUE_BYTES", 100)
    schema = pa.schema([pa.field("number", pa.int64())])
    gate, taken, made = Semaphore(0), [], []

    def make(number):
        gate.acquire()
        made.append(number)
        return pa.record_batch({"number": [number]}, schema=schema)

    def offer(write):
        for number, size in enumerate([40, 40, 20, 50, 500, 10]):
            write(partial(make, number), size)
            taken.append(number)

    def settled(n):
        """Whether ``n`` batches were taken, and no more a moment later."""
        deadline = time.monotonic() + 30
        while len(taken) < n and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.05)
        return len(taken) == n

    with _background_writer(tmp_path / "a.parquet", schema) as write:
        thread = Thread(target=offer, args=(write,))
        thread.start()
        assert settled(3)  # 100 bytes in flight
        gate.release()
        assert settled(3)  # 60 and 50 are too many
        gate.release()
        assert settled(4)  # 20 and 50
        gate.release()
        assert settled(4)
        gate.release()
        assert settled(5)  # more than the queue holds, and alone in it
        gate.release()
        assert settled(6)
        gate.release()
        thread.join()
    assert made == list(range(6))
    assert pq.read_table(tmp_path / "a.parquet")["number"].to_pylist() == made


def test_the_file_does_not_depend_on_the_size_of_the_queue(tiny, examples, tmp_path, monkeypatch):
    for name, size in (("a", 0), ("b", 2**26)):
        monkeypatch.setattr(module, "QUEUE_BYTES", size)
        cache(tiny, examples, tmp_path / name, positions="all")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_all_positions(tiny, examples, tmp_path):
    rows = cache(tiny, examples, tmp_path / "a.parquet", positions="all")
    table = pq.read_table(tmp_path / "a.parquet").to_pandas()
    assert rows == len(table)
    for example_id, text in zip(examples["example_id"], examples["text"], strict=True):
        mine = table[table["example_id"] == example_id].sort_values("position")
        tokens, residuals = directly(tiny, text)
        assert mine["position"].tolist() == list(range(len(tokens)))
        assert mine["token_id"].tolist() == tokens  # no padding in between
        for name in NAMES:
            got = np.stack(mine[name])
            np.testing.assert_allclose(got, residuals[name], rtol=1e-4, atol=1e-4)


def test_of_all_positions_the_last_is_read_unless_another_is_named(tiny, examples, tmp_path):
    for name in ("last", "all"):
        cache(tiny, examples, tmp_path / f"{name}.parquet", positions=name)
        lengths = [
            len(tokenize(tiny.tokenizer, [text], prepend_bos=True, max_tokens=10)[0])
            for text in examples["text"]
        ]
        examples.assign(n_tokens=lengths).to_parquet(tmp_path / "examples.parquet")
        rows = expected_rows(tmp_path / "examples.parquet", name)
        write_manifest([tmp_path / f"{name}.parquet"], tmp_path / f"{name}.json", rows)
    last, every = (ActivationCache(tmp_path / f"{name}.json") for name in ("last", "all"))
    ids = examples["example_id"].tolist()
    for name in NAMES:
        np.testing.assert_array_equal(every.matrix(name, ids), last.matrix(name, ids))
        _, values = directly(tiny, examples["text"][3])
        for position in (0, -2):
            np.testing.assert_allclose(
                every.matrix(name, ["e03"], position)[0],
                values[name][position],
                rtol=1e-4,
                atol=1e-4,
            )


@pytest.mark.parametrize("batch_tokens", [16, 48, 4096])
def test_row_groups_are_bounded_for_any_batches(
    tiny, examples, tmp_path, monkeypatch, batch_tokens
):
    """So neither writing nor reading ever holds more than the batches in flight and a group."""
    monkeypatch.setattr("steering_core.activations.cache.GROUP_ROWS", 5)
    cache(tiny, examples, tmp_path / "a.parquet", batch_tokens=batch_tokens)
    file = pq.ParquetFile(tmp_path / "a.parquet")
    groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    assert groups == [5, 5, 5, 5, 3]
    lengths = [len(tokenize(tiny.tokenizer, [t], prepend_bos=True, max_tokens=10)[0])
               for t in examples["text"]]  # fmt: skip
    order = sorted(range(23), key=lambda i: (lengths[i], i))
    names = file.read(columns=["example_id"])["example_id"].to_pylist()
    assert names == examples["example_id"].iloc[order].tolist()


@pytest.mark.parametrize("shards", [2, 3, 50])
def test_shards_are_a_partition(tiny, examples, tmp_path, shards):
    parts = [tmp_path / f"part-{i}.parquet" for i in range(shards)]
    rows = [cache(tiny, examples, p, shard=i, shards=shards) for i, p in enumerate(parts)]
    assert sum(rows) == 23
    write_manifest(parts, tmp_path / "manifest.json", expected_rows=23)
    cache(tiny, examples, tmp_path / "whole.parquet")
    write_manifest([tmp_path / "whole.parquet"], tmp_path / "whole.json", expected_rows=23)
    ids = examples["example_id"].tolist()
    for name in NAMES:
        np.testing.assert_allclose(
            ActivationCache(tmp_path / "manifest.json").matrix(name, ids),
            ActivationCache(tmp_path / "whole.json").matrix(name, ids),
            rtol=1e-5, atol=1e-5,
        )  # fmt: skip


def test_same_input_same_bytes(tiny, examples, tmp_path):
    cache(tiny, examples, tmp_path / "a.parquet")
    cache(tiny, examples, tmp_path / "b.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_is_refused_by_example_and_site_and_leaves_nothing(tiny, examples, tmp_path, value):
    poisoned = examples.iloc[[4]]["text"].item()
    (row,) = tokenize(tiny.tokenizer, [poisoned], prepend_bos=True, max_tokens=10)
    passes = []

    def poison(residual):
        bad = residual.clone()
        passes.append(1)
        if len(passes) == 1 + longer:
            bad[:, len(row) - 1, 3] = value
        return bad

    only = examples.iloc[[0, 4]].reset_index(drop=True)
    longer = len(tokenize(tiny.tokenizer, [only["text"][0]], prepend_bos=True)[0]) <= len(row)
    with (
        edit_residual(tiny, Site(2, "post", False, True), poison),
        pytest.raises(DataError, match=rf"{NAMES[1]}.*e04.*float16"),
    ):
        cache(tiny, only, tmp_path / "a.parquet", batch_tokens=1)
    assert list(tmp_path.iterdir()) == []


def test_sites_that_disagree_on_bos_are_refused(tiny, examples, tmp_path):
    with pytest.raises(DataError, match="BOS"):
        cache_activations(
            tiny,
            examples,
            [Site(1, "pre", False, True), Site(2, "pre", False, False)],
            tmp_path / "a.parquet",
            max_tokens=10,
            batch_tokens=30,
        )


def test_one_forward_pass_a_batch_for_all_sites(tiny, examples, tmp_path):
    passes = []
    handle = tiny.model.get_input_embeddings().register_forward_hook(lambda *_: passes.append(1))
    try:
        cache(tiny, examples, tmp_path / "a.parquet", batch_tokens=5 * WIDTH_STEP)
    finally:
        handle.remove()
    assert len(passes) == 5  # 23 rows, five at a time


def test_texts_outside_the_cache_have_the_same_residuals(tiny, examples, tmp_path):
    cache(tiny, examples, tmp_path / "a.parquet")
    write_manifest([tmp_path / "a.parquet"], tmp_path / "m.json", expected_rows=23)
    stored = ActivationCache(tmp_path / "m.json")
    for site in SITES:
        expected = stored.matrix(site.hook_name, examples["example_id"].tolist())
        got = last_token_residuals(
            tiny, examples["text"].tolist(), site, max_tokens=10, batch_tokens=17
        )
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def test_bfloat16_is_stored_exactly(tiny_model, examples, tmp_path):
    """float32 on disk holds what a bfloat16 model computed, bit for bit."""
    source = SAESource(path="unused/layer_{layer}")
    half = load_language_model(Model(id=str(tiny_model), sae=source, dtype="bfloat16"), "cpu")
    raw = Site(1, "pre", False, True)
    few = examples.iloc[:5].reset_index(drop=True)
    cache_activations(half, few, [raw], tmp_path / "a.parquet", max_tokens=10, batch_tokens=1)
    for row in pq.read_table(tmp_path / "a.parquet").to_pylist():
        text = few.set_index("example_id")["text"][row["example_id"]]
        ids = torch.tensor(tokenize(half.tokenizer, [text], prepend_bos=True, max_tokens=10))
        stream = read_residuals(half, [raw], ids, torch.ones_like(ids, dtype=torch.bool))
        computed = stream[raw.hook_name][0, -1]
        assert computed.dtype == torch.bfloat16
        stored = torch.tensor(row[raw.hook_name])
        assert torch.equal(stored, stored.bfloat16().float())
        torch.testing.assert_close(stored, computed.float(), rtol=0.05, atol=0.05)
