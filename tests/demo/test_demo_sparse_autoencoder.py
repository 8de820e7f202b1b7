import json

import pytest
import torch
from sae_lens import SAE
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoTokenizer

from steering_core.demo.language_model import read_texts
from steering_core.demo.sparse_autoencoder import residual_streams, train_saes
from steering_core.errors import ModelError

TINY = {"d_sae": 32, "k": 4, "n_samples": 60_000, "batch_size": 256}


@pytest.fixture(scope="module")
def sae_dir(demo_model_dir, demo_corpus, tmp_path_factory):
    path = tmp_path_factory.mktemp("sae") / "saes"
    train_saes(demo_model_dir, demo_corpus, path, **TINY)
    return path


def test_streams_are_the_bridges_resid_post_without_bos(demo_model_dir, demo_corpus):
    texts = read_texts(demo_corpus)[:5]
    streams = residual_streams(demo_model_dir, texts, [0, 1], batch_size=2)
    tokenizer = AutoTokenizer.from_pretrained(demo_model_dir)
    bridge = TransformerBridge.boot_transformers(str(demo_model_dir), device="cpu")
    for layer, stream in streams.items():
        name = f"blocks.{layer}.hook_resid_post"
        expected = []
        for text in texts:
            ids = tokenizer(text, return_tensors="pt")["input_ids"]
            with torch.no_grad():
                _, cache = bridge.run_with_cache(ids, names_filter=[name])
            expected.append(cache[name][0, 1:])
        torch.testing.assert_close(stream, torch.cat(expected), atol=1e-4, rtol=1e-4)


def test_layer_outside_the_model_is_an_error(demo_model_dir):
    with pytest.raises(ModelError, match="layer 2"):
        residual_streams(demo_model_dir, ["the film was"], [2])


def test_saes_load_with_their_metadata(sae_dir):
    for layer in (0, 1):
        sae = SAE.load_from_disk(sae_dir / f"layer_{layer}")
        metadata = sae.cfg.metadata
        for key in ("hook_name", "prepend_bos", "context_size", "model_name"):
            assert key in metadata
        assert metadata.hook_name == f"blocks.{layer}.hook_resid_post"
        assert metadata.prepend_bos is True
        assert metadata.context_size == 64
        assert sae.W_dec.shape == (32, 16)
        torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(32))


def test_report_describes_the_saved_saes(sae_dir):
    report = json.loads((sae_dir / "training.json").read_text())
    assert set(report) == {"layer_0", "layer_1"}
    for numbers in report.values():
        assert 0.5 < numbers["l0"] < 12
        assert 0.3 < numbers["explained_variance"] < 1
        assert 0 <= numbers["dead_features"] < 32


def test_same_arguments_same_bytes(sae_dir, demo_model_dir, demo_corpus, tmp_path):
    train_saes(demo_model_dir, demo_corpus, tmp_path / "again", **TINY)
    files = [path.relative_to(sae_dir) for path in sae_dir.rglob("*") if path.is_file()]
    assert len(files) == 5
    for name in files:
        assert (tmp_path / "again" / name).read_bytes() == (sae_dir / name).read_bytes(), name
