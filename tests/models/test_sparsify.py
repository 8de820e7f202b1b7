"""SAEs in sparsify's layout are read as they are."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from steering_core.config.model import SAESource
from steering_core.errors import ModelError
from steering_core.models.sae_source import layers_with_sae, load_sae_shape
from steering_core.models.sparse_autoencoder import load_sae

D_IN, D_SAE, K = 8, 24, 3
CONFIG = {
    **{"activation": "topk", "expansion_factor": 3, "normalize_decoder": True},
    **{"num_latents": 0, "k": K, "multi_topk": False, "skip_connection": False, "d_in": D_IN},
}


def write(folder: Path, **changes) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"encoder.weight": (D_SAE, D_IN), "encoder.bias": (D_SAE,)}
    shapes |= {"W_dec": (D_SAE, D_IN), "b_dec": (D_IN,)}
    tensors = {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}
    folder.mkdir()
    (folder / "cfg.json").write_text(json.dumps({**CONFIG, **changes}))
    save_file(tensors, folder / "sae.safetensors")
    return tensors


@pytest.mark.parametrize(
    ("part", "stream"), [("", "post"), (".mlp", "mlp"), (".self_attn", "attn")]
)
def test_features_are_those_of_sparsify(tmp_path, part, stream):
    tensors = write(tmp_path / f"layers.1{part}")
    source = SAESource(path=str(tmp_path / f"layers.{{layer}}{part}"))
    assert layers_with_sae(source, 4) == [1]
    shape = load_sae_shape(source, 1)
    assert (shape.site.layer, shape.site.stream, shape.site.prepend_bos) == (1, stream, False)
    assert (shape.d_in, shape.d_sae) == (D_IN, D_SAE)
    x = torch.randn(10, D_IN, generator=torch.Generator().manual_seed(1))
    before = torch.relu(
        (x - tensors["b_dec"]) @ tensors["encoder.weight"].T + tensors["encoder.bias"]
    )
    values, indices = before.topk(K)  # as sparsify encodes
    want = torch.einsum("nk,nkd->nd", values, tensors["W_dec"][indices])
    found = load_sae(source, 1)
    got = found.encode(x).numpy() @ found.decoder
    np.testing.assert_allclose(got, want.numpy(), rtol=1e-4, atol=1e-4)
    assert (found.encode(x) > 0).sum(1).max() <= K


def test_the_number_of_features_stands_in_either_key(tmp_path):
    write(tmp_path / "layers.0", num_latents=D_SAE, expansion_factor=7)
    assert load_sae_shape(SAESource(path=str(tmp_path / "layers.{layer}")), 0).d_sae == D_SAE


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"activation": "groupmax"}, "its activation is 'groupmax'"),
        ({"transcode": True}, "transcode is set"),
        ({"skip_connection": True}, "skip_connection is set"),
        ({"k": None}, "has no k"),
        ({"expansion_factor": None}, "no num_latents"),
        ({"k": 99}, "k is 99, but there are 24"),
        ({"expansion_factor": 4}, "do not belong together"),
    ],
)
def test_what_cannot_be_used_is_refused_before_any_weight(tmp_path, changes, match):
    write(tmp_path / "layers.0", **changes)
    with pytest.raises(ModelError, match=match):
        load_sae_shape(SAESource(path=str(tmp_path / "layers.{layer}")), 0)


def test_damaged_or_missing_weights(tmp_path):
    write(tmp_path / "layers.0")
    source = SAESource(path=str(tmp_path / "layers.{layer}"))
    weights = tmp_path / "layers.0" / "sae.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ModelError, match="is damaged"):
        load_sae(source, 0)
    weights.unlink()
    with pytest.raises(ModelError, match=r"no sae\.safetensors"):
        load_sae(source, 0)
