"""SAEs at their site: centring, scaling, reconstruction, refusals."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sae_lens import StandardSAE, StandardSAEConfig
from sae_lens.saes.sae import SAEMetadata

from steering_core.config.model import SAESource
from steering_core.errors import ConfigError, ModelError
from steering_core.models.residual_stream import read_residuals
from steering_core.models.sae_source import (
    layers_with_sae,
    load_sae_shape,
    sae_name,
    sae_repository,
)
from steering_core.models.site import Site
from steering_core.models.sparse_autoencoder import as_dictionary, load_sae
from steering_core.models.tokens import pad, tokenize

GEMMA = SAESource(release="gemma-scope-2b-pt-res-canonical", id="layer_{layer}/width_16k/canonical")


def standard(metadata=None, **config) -> StandardSAE:
    """A random SAE of width 8 with 20 features and decoder rows of various lengths."""
    metadata = {"hook_name": "blocks.1.hook_resid_post", "prepend_bos": True, **(metadata or {})}
    sae = StandardSAE(
        StandardSAEConfig(d_in=8, d_sae=20, metadata=SAEMetadata(**metadata), **config)
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        sae.W_dec[3] = 0.0
    return sae


def reconstruct(dictionary, residuals):
    features = dictionary.encode(torch.from_numpy(residuals)).numpy()
    return features @ dictionary.decoder + dictionary.sae.b_dec.numpy()


def explained(true, guess):
    return 1 - ((true - guess) ** 2).sum() / ((true - true.mean(axis=0)) ** 2).sum()


# ------------------------------------------------------------------ the hub's SAEs


def test_gpt2_site(gpt2_sae):
    assert gpt2_sae.site == Site(layer=7, stream="pre", centred=True, prepend_bos=True)
    assert gpt2_sae.neuronpedia_id == "gpt2-small/7-res-jb"
    assert (gpt2_sae.d_sae, gpt2_sae.d_model) == (1536, 96)
    np.testing.assert_allclose(np.linalg.norm(gpt2_sae.decoder, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(gpt2_sae.decoder.mean(axis=1), 0, atol=1e-6)


def test_gemma_scope_is_raw_at_resid_post(hub):
    dictionary = load_sae(GEMMA, 15)
    assert dictionary.site == Site(layer=15, stream="post", centred=False, prepend_bos=True)
    assert load_sae_shape(GEMMA, 15).site == dictionary.site
    assert dictionary.decoder.shape == (16384, 2304)
    norms = np.linalg.norm(dictionary.decoder, axis=1)
    np.testing.assert_allclose(norms[norms > 0], 1, atol=1e-4)
    assert dictionary.neuronpedia_id == "gemma-2-2b/15-gemmascope-res-16k"


@pytest.fixture(scope="module")
def sst2_streams(gpt2):
    """Raw residuals at three sites, BOS positions left out."""
    import pyarrow.parquet as pq
    from huggingface_hub import hf_hub_download, list_repo_files

    name = next(
        f
        for f in list_repo_files("stanfordnlp/sst2", repo_type="dataset")
        if "validation" in f and f.endswith(".parquet")
    )
    file = hf_hub_download("stanfordnlp/sst2", name, repo_type="dataset")
    texts = pq.read_table(file)["sentence"].to_pylist()[:64]
    rows = tokenize(gpt2.tokenizer, texts, prepend_bos=True, max_tokens=128)
    batch = pad(rows, gpt2.tokenizer, side="right", prepend_bos=True)
    sites = [Site(layer, "pre", True, True) for layer in (1, 2, 7, 8, 11)]
    raw = read_residuals(gpt2, sites, batch.ids, batch.mask)
    real = batch.mask & ~batch.bos
    return {site.layer: raw[site.hook_name][real].numpy() for site in sites}


def test_gpt2_reconstructs_at_its_site_only(gpt2_sae, sst2_streams):
    here = gpt2_sae.site.view(sst2_streams[7])
    right = explained(here, reconstruct(gpt2_sae, here))
    assert right >= 0.8
    for layer in (1, 2, 8, 11):
        elsewhere = gpt2_sae.site.view(sst2_streams[layer])
        assert explained(elsewhere, reconstruct(gpt2_sae, elsewhere)) < right - 0.2


def test_the_mean_of_the_stream_must_not_reach_the_sae(gpt2_sae, sst2_streams):
    """The stand-in's stream has little mean of its own; the real one's is given to it here."""
    raw = sst2_streams[7] + 3.0
    here = gpt2_sae.site.view(raw)
    assert explained(here, reconstruct(gpt2_sae, here)) >= 0.8
    assert explained(here, reconstruct(gpt2_sae, raw)) < 0.6


def test_features_are_sparse_at_the_site(gpt2_sae, sst2_streams):
    here = gpt2_sae.site.view(sst2_streams[7])
    active = (gpt2_sae.encode(torch.from_numpy(here)) > 0).sum(dim=1).float().mean()
    assert 5 < active < 60


# ------------------------------------------------------------------ local SAEs


@pytest.mark.parametrize("centred", [False, True])
def test_local_directory_round_trip(tmp_path, centred):
    kwargs = {"model_from_pretrained_kwargs": {"center_writing_weights": True}} if centred else {}
    sae = standard(kwargs)
    sae.save_model(str(tmp_path / "layer_1"))
    source = SAESource(path=str(tmp_path / "layer_{layer}"))
    assert layers_with_sae(source, 4) == [1]
    shape = load_sae_shape(source, 1)
    loaded = load_sae(source, 1)
    assert shape.site == loaded.site == Site(1, "post", centred, True)
    assert (shape.d_in, shape.d_sae) == (8, 20)
    assert loaded.neuronpedia_id is None and sae_repository(source, 1) is None
    assert loaded.description == sae_name(source, 1) == str(tmp_path / "layer_1")
    torch.testing.assert_close(loaded.sae.W_dec, sae.W_dec.detach())


def test_rescaling_keeps_what_the_sae_says(tmp_path):
    """Coefficients times unit rows are the SAE's own decoder output, and lengths."""
    sae = standard()
    dictionary = as_dictionary(sae, "sae")
    norms = np.linalg.norm(dictionary.decoder, axis=1)
    alive = np.arange(20) != 3
    np.testing.assert_allclose(norms[alive], 1, atol=1e-6)
    assert not dictionary.decoder[3].any() and np.isfinite(dictionary.decoder).all()
    x = torch.randn(30, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = sae.decode(sae.encode(x)).numpy()
    np.testing.assert_allclose(reconstruct(dictionary, x.numpy()), expected, atol=1e-4)
    own = sae.W_dec.detach().norm(dim=1)
    torch.testing.assert_close(dictionary.encode(x), sae.encode(x).detach() * own)


def test_centred_rows_have_no_mean_and_lengths_after_centring():
    sae = standard({"model_from_pretrained_kwargs": {"center_writing_weights": True}})
    dictionary = as_dictionary(sae, "sae")
    np.testing.assert_allclose(dictionary.decoder.mean(axis=1), 0, atol=1e-6)
    x = torch.randn(30, 8, generator=torch.Generator().manual_seed(1))
    rows = sae.W_dec.detach() - sae.W_dec.detach().mean(dim=1, keepdim=True)
    expected = sae.encode(x).detach() @ rows
    features = dictionary.encode(x).numpy()
    np.testing.assert_allclose(features @ dictionary.decoder, expected.numpy(), atol=1e-4)


def test_encoding_takes_the_dtype_of_the_sae():
    dictionary = as_dictionary(standard(dtype="bfloat16").to(torch.bfloat16), "sae")
    assert dictionary.decoder.dtype == np.float32
    features = dictionary.encode(torch.randn(4, 8, dtype=torch.float32))
    assert features.shape == (4, 20)


def test_an_sae_of_the_old_format_is_read_by_both_loaders(tmp_path):
    sae = standard()
    sae.save_model(str(tmp_path / "layer_1"))
    flat = {
        "architecture": "standard",
        "d_in": 8,
        "d_sae": 20,
        "dtype": "float32",
        "device": "cpu",
        "hook_name": "blocks.1.hook_resid_pre",
        "prepend_bos": True,
        "activation_fn_str": "relu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
    }
    (tmp_path / "layer_1" / "cfg.json").write_text(json.dumps(flat))
    source = SAESource(path=str(tmp_path / "layer_{layer}"))
    expected = Site(1, "pre", False, True)
    assert load_sae_shape(source, 1).site == load_sae(source, 1).site == expected


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize("how", ["expected_average_only_in", "covariance_whitening"])
def test_rescaled_inputs_are_refused(how):
    with pytest.raises(ModelError, match=how):
        as_dictionary(standard(normalize_activations=how), "sae")


def test_non_residual_hook_is_refused(tmp_path):
    sae = standard({"hook_name": "blocks.1.attn.hook_z"})
    with pytest.raises(ModelError, match="hook_z"):
        as_dictionary(sae, "sae")
    sae.save_model(str(tmp_path / "layer_1"))
    with pytest.raises(ModelError, match="hook_z"):
        load_sae_shape(SAESource(path=str(tmp_path / "layer_{layer}")), 1)


@pytest.mark.parametrize("loader", [load_sae, load_sae_shape])
def test_missing_hook_name(tmp_path, loader):
    standard({"hook_name": None}).save_model(str(tmp_path / "layer_1"))
    with pytest.raises(ModelError, match="no hook_name"):
        loader(SAESource(path=str(tmp_path / "layer_{layer}")), 1)


def test_damaged_local_files(tmp_path):
    standard().save_model(str(tmp_path / "layer_1"))
    source = SAESource(path=str(tmp_path / "layer_{layer}"))
    weights = Path(tmp_path / "layer_1" / "sae_weights.safetensors")
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ModelError, match="damaged"):
        load_sae(source, 1)
    weights.unlink()
    with pytest.raises(ModelError, match="missing"):
        load_sae(source, 1)
    (tmp_path / "layer_1" / "cfg.json").write_text("{")
    with pytest.raises(ConfigError, match="not JSON"):
        load_sae_shape(source, 1)
