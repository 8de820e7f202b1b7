"""Where SAEs come from, and what is known of them without their weights."""

from pathlib import Path

import pytest
import yaml
from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

from steering_core.config.model import Model, SAESource
from steering_core.errors import ConfigError, ModelError
from steering_core.models.fetch import same_model
from steering_core.models.sae_source import (
    layers_with_sae,
    load_sae_shape,
    sae_id,
    sae_repository,
)
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


@pytest.mark.parametrize(
    ("l0", "layer", "expected"),
    [(70, 0, 46), (70, 5, 68), ([105, 102], 1, 102)],
)
def test_an_id_has_a_number_of_its_own_for_each_layer(l0, layer, expected):
    source = SAESource(
        release="gemma-scope-2b-pt-res", id="layer_{layer}/width_16k/average_l0_{l0}", l0=l0
    )
    assert sae_id(source, layer) == f"layer_{layer}/width_16k/average_l0_{expected}"


def test_a_number_near_the_wanted_one_gives_every_layer_an_sae():
    source = SAESource(
        release="gemma-scope-2b-pt-res", id="layer_{layer}/width_16k/average_l0_{l0}", l0=70
    )
    assert layers_with_sae(source, 26) == list(range(26))
    few = source.model_copy(update={"l0": [105, 102]})
    assert layers_with_sae(few, 26) == [0, 1]
    with pytest.raises(ConfigError, match="2 numbers, none for layer 7"):
        sae_id(few, 7)
    with pytest.raises(ConfigError, match="check the id"):
        sae_id(source.model_copy(update={"id": "layer_{layer}/width_17k/{l0}"}), 7)


@pytest.mark.parametrize(
    ("said", "model_id", "same"),
    [
        ("gpt2-small", "openai-community/gpt2", True),
        ("gemma-2-2b", "google/gemma-2-2b", True),
        ("gemma-2-2b", "google/gemma-2-2b-it", False),
        ("demo", ".", False),
    ],
)
def test_the_name_of_the_model_is_compared(said, model_id, same):
    assert same_model(said, model_id) is same


PUBLISHED = yaml.safe_load(
    (Path(__file__).resolve().parents[2] / "config.yaml").read_text(encoding="utf-8")
)
RELEASES = {
    name: Model(**{key: model[key] for key in ("id", "sae")})
    for section in (PUBLISHED["models"], PUBLISHED["corrsteer"]["models"])
    for name, model in section.items()
    if "release" in model.get("sae", {})
}


@pytest.mark.parametrize("name", RELEASES)
def test_the_configured_models_have_saes_of_their_own(name):
    model = RELEASES[name]
    assert layers_with_sae(model.sae, 20)
    said = get_pretrained_saes_directory()[model.sae.release].model
    assert same_model(said, model.id) or name in {"gemma_it", "gemma2b"}  # transfer, as published
