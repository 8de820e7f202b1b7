"""Where SAEs come from, and what is known of them without their weights."""

import pytest

from steering_core.config.model import SAESource
from steering_core.errors import ConfigError, ModelError
from steering_core.models.sae_source import layers_with_sae, load_sae_shape, sae_repository
from steering_core.models.sparse_autoencoder import load_sae

GPT2 = SAESource(release="gpt2-small-res-jb", id="blocks.{layer}.hook_resid_pre")
GEMMA = SAESource(release="gemma-scope-2b-pt-res-canonical", id="layer_{layer}/width_16k/canonical")


def test_gpt2_shape_without_weights_agrees(hub, gpt2_sae):
    shape = load_sae_shape(GPT2, 7)
    assert (shape.site, shape.d_sae, shape.d_in) == (gpt2_sae.site, 1536, 96)
    assert shape.neuronpedia_id == gpt2_sae.neuronpedia_id
    assert sae_repository(GPT2, 7) == "jbloom/GPT2-Small-SAEs-Reformatted"


@pytest.mark.parametrize("loader", [load_sae, load_sae_shape])
def test_unknown_release_id_or_path(hub, tmp_path, loader):
    with pytest.raises(ConfigError, match="gpt3-small"):
        loader(SAESource(release="gpt3-small", id="blocks.{layer}.hook_resid_pre"), 1)
    with pytest.raises(ConfigError, match="hook_resid_past"):
        loader(SAESource(release="gpt2-small-res-jb", id="blocks.{layer}.hook_resid_past"), 1)
    with pytest.raises(ConfigError, match=r"cfg\.json"):
        loader(SAESource(path=str(tmp_path / "layer_{layer}")), 1)


@pytest.mark.parametrize("loader", [load_sae, load_sae_shape])
def test_a_repository_that_is_not_there(hub, loader):
    with pytest.raises(ModelError, match="nobody/saes is not on the hub"):
        loader(SAESource(release="nobody/saes", id="layer_{layer}"), 1)


@pytest.mark.parametrize("loader", [load_sae, load_sae_shape])
def test_a_repository_without_saes_in_the_format_of_sae_lens(hub, loader):
    with pytest.raises(
        ConfigError, match=r"gpt2 on the hub has no layer_1/cfg\.json: check the id"
    ):
        loader(SAESource(release="openai-community/gpt2", id="layer_{layer}"), 1)


def test_layers_with_sae(hub):
    assert layers_with_sae(GPT2, 12) == list(range(12))
    assert layers_with_sae(GEMMA, 26) == list(range(26))
    post = SAESource(release="gpt2-small-res-jb", id="blocks.{layer}.hook_resid_post")
    assert layers_with_sae(post, 12) == [11]
