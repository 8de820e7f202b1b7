"""Weights that no later stage could load are found when they are fetched."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from steering_core.errors import ModelError
from steering_core.models.fetch import fetch_weights, require_safetensors

ROOT = Path(__file__).resolve().parents[2]
HUB = ROOT.parent / "shared" / "hub"


@pytest.fixture
def folder(tmp_path):
    """A directory with a configuration and weights of two parts."""
    (tmp_path / "config.json").write_text("{}")
    parts = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    for part in parts.values():
        (tmp_path / part).write_bytes(b"x")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": parts}))
    return tmp_path


def test_whole_weights_pass(folder, tiny_model):
    require_safetensors(folder, "some/model")
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    assert fetch_weights(str(tiny_model), "main") == model.num_parameters()


def test_a_missing_part_is_named(folder):
    (folder / "model-2.safetensors").unlink()
    with pytest.raises(ModelError, match=r"lacks 1 of 2 files.*model-2\.safetensors"):
        fetch_weights(str(folder), "main")


def test_only_weights_of_another_format(folder):
    (folder / "model.safetensors.index.json").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"no weights in safetensors.*save_pretrained"):
        fetch_weights(str(folder), "main")


def test_weights_under_a_name_that_the_configuration_gives(folder):
    (folder / "model.safetensors.index.json").unlink()
    (folder / "config.json").write_text('{"transformers_weights": "model-1.safetensors"}')
    require_safetensors(folder, "some/model")
    (folder / "model-1.safetensors").unlink()
    with pytest.raises(ModelError, match=r"model-1\.safetensors"):
        require_safetensors(folder, "some/model")


@pytest.fixture
def bin_hub(hub, tmp_path, monkeypatch):
    """A hub with one model whose weights are pickled."""
    root = tmp_path / "hub"
    repository = root / "models" / "some" / "model"
    shutil.copytree(HUB / "models" / "openai-community" / "gpt2", repository)
    repository.chmod(0o755)
    for file in repository.glob("*.safetensors*"):
        file.unlink()
    (repository / "pytorch_model.bin").write_bytes(b"x")
    spec = importlib.util.spec_from_file_location("bin_hub_serve", HUB / "serve.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    server = module.serve(root, 0)
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


def test_a_repository_without_safetensors(bin_hub, tmp_path, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    commit = huggingface_hub.HfApi(endpoint=bin_hub).model_info("some/model").sha
    download = huggingface_hub.snapshot_download
    monkeypatch.setattr(
        "steering_core.models.fetch.snapshot_download",
        lambda *a, **k: download(*a, **k, endpoint=bin_hub, cache_dir=tmp_path / "cache"),
    )
    with pytest.raises(ModelError, match="some/model has no weights in safetensors"):
        fetch_weights("some/model", commit)
    assert not list((tmp_path / "cache").rglob("pytorch_model.bin"))
