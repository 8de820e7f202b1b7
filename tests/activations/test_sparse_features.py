"""SAE features of cached residuals, stored sparse."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from steering_core.activations.features import encode_features, feature_matrix, read_features
from steering_core.activations.manifest import write_manifest
from steering_core.activations.reader import ActivationCache
from steering_core.errors import ModelError, StorageError
from steering_core.models.sparse_autoencoder import as_dictionary

HOOK = "blocks.0.hook_resid_pre"


def dictionary(dtype=torch.float32):
    from sae_lens import StandardSAE, StandardSAEConfig
    from sae_lens.saes.sae import SAEMetadata

    sae = StandardSAE(
        StandardSAEConfig(d_in=4, d_sae=16, metadata=SAEMetadata(hook_name=HOOK, prepend_bos=True))
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        sae.b_enc -= 1.5  # so that some rows have no active feature
    return as_dictionary(sae.to(dtype), "sae")


@pytest.fixture
def cached(tmp_path, write_part):
    names = [[f"e{i}" for i in range(k, k + 4)] for k in (0, 4, 8)]
    values = write_part(tmp_path / "a.parquet", names)
    write_manifest([tmp_path / "a.parquet"], tmp_path / "m.json", expected_rows=12)
    return ActivationCache(tmp_path / "m.json"), values


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_features_equal_dense_encoding(cached, tmp_path, dtype):
    cache, values = cached
    sae = dictionary(dtype)
    encode_features(cache, sae, tmp_path / "f.parquet")
    ids = ["e11", "e2", "e7", "e0"]
    dense = sae.encode(torch.from_numpy(np.stack([values[name] for name in ids]))).float().numpy()
    stored = feature_matrix(tmp_path / "f.parquet", ids)
    assert stored.shape == (4, 16) and stored.has_sorted_indices
    # A batch of another size may round differently in half precision.
    tolerance = 1e-6 if dtype == torch.float32 else 5e-2
    np.testing.assert_allclose(stored.toarray(), dense, atol=tolerance, rtol=tolerance)
    whole = feature_matrix(tmp_path / "f.parquet", [f"e{i}" for i in range(12)])
    counts = np.diff(whole.indptr)
    assert counts.min() < counts.max() < 16 and (whole.data > 0).all()


def test_row_groups_stay_batches_and_the_header_names_the_sae(cached, tmp_path):
    cache, _ = cached
    encode_features(cache, dictionary(), tmp_path / "f.parquet", metadata={"run": "x"})
    file = pq.ParquetFile(tmp_path / "f.parquet")
    assert file.num_row_groups == 3
    header = json.loads(file.schema_arrow.metadata[b"steering_core"])
    assert header == {"d_sae": 16, "sae": "sae", "run": "x"}
    groups = list(read_features(tmp_path / "f.parquet"))
    assert [names for names, _ in groups] == [[f"e{i}" for i in range(k, k + 4)] for k in (0, 4, 8)]
    assert {block.shape for _, block in groups} == {(4, 16)}


def test_a_batch_without_any_active_feature(tmp_path, write_part):
    write_part(tmp_path / "a.parquet", [["e0"]])
    write_manifest([tmp_path / "a.parquet"], tmp_path / "m.json", expected_rows=1)
    sae = dictionary()
    with torch.no_grad():
        sae.sae.b_enc -= 100
    encode_features(ActivationCache(tmp_path / "m.json"), sae, tmp_path / "f.parquet")
    assert feature_matrix(tmp_path / "f.parquet", ["e0"]).nnz == 0


def test_features_that_overflow_are_no_features(cached, tmp_path):
    sae = dictionary(torch.float16)
    with torch.no_grad():
        sae.sae.W_enc *= 30_000
    with pytest.raises(ModelError, match=r"not finite numbers in torch\.float16"):
        encode_features(cached[0], sae, tmp_path / "f.parquet")
    assert not (tmp_path / "f.parquet").exists()


def test_an_example_without_features(cached, tmp_path):
    encode_features(cached[0], dictionary(), tmp_path / "f.parquet")
    with pytest.raises(StorageError, match="e99 has no features"):
        feature_matrix(tmp_path / "f.parquet", ["e1", "e99"])


def test_missing_or_damaged_file(cached, tmp_path):
    with pytest.raises(StorageError, match="missing"):
        feature_matrix(tmp_path / "none.parquet", ["e1"])
    path = tmp_path / "f.parquet"
    encode_features(cached[0], dictionary(), path)
    good = path.read_bytes()
    expected = feature_matrix(path, ["e1", "e8"]).toarray()
    refused = 0
    for place in range(4, len(good), 5):
        bad = bytearray(good)
        bad[place] ^= 0x80
        path.write_bytes(bad)
        try:
            feature_matrix(path, ["e1", "e8"])
        except StorageError:
            refused += 1
    assert refused > len(good) // 5 // 3
    path.write_bytes(good[:-20])
    with pytest.raises(StorageError, match="damaged"):
        feature_matrix(path, ["e1"])
    path.write_bytes(good)
    np.testing.assert_array_equal(feature_matrix(path, ["e1", "e8"]).toarray(), expected)
