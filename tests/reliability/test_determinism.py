"""The same numbers for any batch size, as far as float arithmetic allows, and any shard count."""

import numpy as np
import pandas as pd
import pytest

from steering_core.activations.cache import cache_activations
from steering_core.activations.manifest import write_manifest
from steering_core.activations.reader import ActivationCache
from steering_core.models.site import Site

SITE = Site(layer=1, stream="pre", centred=False, prepend_bos=True)


@pytest.fixture(scope="module")
def examples():
    words = np.random.default_rng(0)
    texts = [
        " ".join(f"w{i}" for i in words.integers(0, 60, words.integers(2, 20))) for _ in range(23)
    ]
    return pd.DataFrame({"example_id": [f"e{i}" for i in range(23)], "text": texts})


def cached(tiny, examples, folder, batch_tokens: int, shards: int = 1) -> np.ndarray:
    parts = [folder / f"part-{shard}.parquet" for shard in range(shards)]
    for shard, part in enumerate(parts):
        cache_activations(
            tiny, examples, [SITE], part,
            max_tokens=32, batch_tokens=batch_tokens, shard=shard, shards=shards,
            metadata={"sites": [{"hook_name": SITE.hook_name}]},
        )  # fmt: skip
    write_manifest(parts, folder / "manifest.json", expected_rows=len(examples))
    ids = examples["example_id"].tolist()
    return ActivationCache(folder / "manifest.json").matrix(SITE.hook_name, ids)


def test_the_same_settings_give_the_same_bytes(tiny, examples, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        cached(tiny, examples, tmp_path / name, 128, shards=2)
    for file in ("part-0.parquet", "part-1.parquet", "manifest.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


@pytest.mark.parametrize(("batch_tokens", "shards"), [(16, 1), (64, 3), (4096, 1), (128, 4)])
def test_batches_and_shards_change_last_digits_at_most(
    tiny, examples, tmp_path, batch_tokens, shards
):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    whole = cached(tiny, examples, tmp_path / "a", 256)
    other = cached(tiny, examples, tmp_path / "b", batch_tokens, shards)
    np.testing.assert_allclose(other, whole, rtol=0, atol=2e-6 * np.abs(whole).max())
