"""Later stages use the sources that were fetched, or none."""

import pytest

from steering_core.config.model import Model, SAESource
from steering_core.errors import ModelError
from steering_core.hub.revisions import cached_commit
from steering_core.models.resources import pinned_model
from steering_core.models.sae_source import local_sae_revision, pinned_sae
from steering_core.storage.integrity import named_digest


@pytest.fixture
def world(tmp_path):
    """A local model with two local SAEs, and what the fetch stage says of them."""
    for folder in ("model", "sae_0", "sae_1"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "weights").write_text(folder)
    source = SAESource(path=str(tmp_path / "sae_{layer}"))
    model = Model(id=str(tmp_path / "model"), sae=source)
    resources = {
        "model": {"revision": named_digest(tmp_path / "model")},
        "layers": [0, 1],
        "sae_revision": local_sae_revision(source, [0, 1]),
    }
    return tmp_path, model, resources


def test_what_is_unchanged_is_taken(world):
    _, model, resources = world
    assert pinned_model(model, resources).revision == resources["model"]["revision"]
    assert pinned_sae(model, resources) == model.sae


@pytest.mark.parametrize("folder", ["model", "sae_0", "sae_1"])
def test_what_was_changed_is_refused(world, folder):
    path, model, resources = world
    (path / folder / "weights").write_text("other")
    check = pinned_model if folder == "model" else pinned_sae
    with pytest.raises(ModelError, match="is not what the fetch stage saw"):
        check(model, resources)


@pytest.mark.parametrize("folder", ["model", "sae_1"])
def test_what_is_gone_is_named(world, folder):
    path, model, resources = world
    (path / folder / "weights").unlink()
    (path / folder).rmdir()
    check = pinned_model if folder == "model" else pinned_sae
    with pytest.raises(ModelError, match="gone"):
        check(model, resources)


def test_hub_commit(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert cached_commit("org/name") is None
    reference = tmp_path / "models--org--name" / "refs" / "main"
    reference.parent.mkdir(parents=True)
    reference.write_text("c" * 40 + "\n")
    assert cached_commit("org/name") == "c" * 40
