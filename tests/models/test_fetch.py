"""The fetch stage refuses what cannot work, before any compute."""

import copy
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from stage_scripts import run_stage

from steering_core.config.resolve import resolve
from steering_core.errors import ConfigError, ModelError
from steering_core.hub.revisions import pin
from steering_core.models import fetch
from steering_core.models.fetch import choose_layers, describe, describe_judge, download
from steering_core.models.language_model import ModelShape
from steering_core.models.resources import cached_sites, pinned_model
from steering_core.models.site import Site, site_at
from steering_core.storage.integrity import named_digest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def config():
    return yaml.safe_load((ROOT / "config.yaml").read_text())


def experiment(config, name="gpt2_sst2", **overrides):
    return resolve({**config, **overrides}, name)


def steered(of):
    return None if of.settings.layer == "auto" else of.settings.layer


def layers_of(of):
    return choose_layers(of.model, 12, of.settings.layers, steered=steered(of))[0]


def fetch_experiment(of):
    """Describe and download an experiment as the fetch stage does."""
    given = of.settings
    found = describe(
        of.model,
        layers=given.layers,
        steered_layer=steered(of),
        max_tokens=given.max_tokens,
        new_tokens=given.new_tokens,
    )
    found["classifier"] = describe_judge(of.task.classifier)
    download(of.model, found, [given.layer])
    return found


@pytest.fixture(scope="module")
def fetched(hub):
    raw = yaml.safe_load((ROOT / "config.yaml").read_text())
    return resolve({**raw, "layers": [7, 2]}, "gpt2_sst2"), fetch_experiment(
        resolve({**raw, "layers": [7, 2]}, "gpt2_sst2")
    )


def test_fetch_pins_and_describes(fetched):
    of, found = fetched
    assert re.fullmatch("[0-9a-f]{40}", found["model"]["revision"])
    assert re.fullmatch("[0-9a-f]{40}", found["sae_revision"])
    assert re.fullmatch("[0-9a-f]{40}", found["classifier"]["revision"])
    assert found["layers"] == [2, 7]
    assert [s.layer for s in cached_sites(found)] == [2, 7]
    assert site_at(found["saes"][1]) == Site(7, "pre", True, True)
    assert found["saes"][1]["hook_name"] == "blocks.7.hook_resid_pre"
    assert found["shape"]["d_model"] == 96
    assert found["classifier"]["label"] == "POSITIVE"
    assert {"torch", "transformers", "sae-lens"} <= set(found["versions"])
    assert pinned_model(of.model, found).revision == found["model"]["revision"]
    assert pinned_model(of.model, found).sae == of.model.sae


def test_an_sae_that_moved_between_pin_and_download_is_refused(fetched):
    """sae-lens downloads whatever `main` is by then."""
    of, found = fetched
    moved = {**found, "sae_revision": "0" * 40}
    with pytest.raises(ModelError, match=f"holds commit {found['sae_revision']}, 0+ was pinned"):
        download(of.model, moved, [7])


def test_what_was_fetched_is_there_offline(fetched):
    from huggingface_hub import snapshot_download

    _, found = fetched
    for part in (found["model"], {"id": found["classifier"]["model"], **found["classifier"]}):
        folder = snapshot_download(part["id"], revision=part["revision"], local_files_only=True)
        names = {file.name for file in Path(folder).iterdir()}
        assert "config.json" in names and any(n.endswith(".safetensors") for n in names)


def test_all_layers_with_an_sae_by_default(config):
    assert layers_of(experiment(config)) == list(range(12))


@pytest.mark.parametrize("override", [{"layer": 12}, {"layers": [3, 99]}])
def test_layer_out_of_range(hub, config, override):
    with pytest.raises(ConfigError, match=r"out of range, gpt2 has 12 layers \(0 to 11\)"):
        fetch_experiment(experiment(config, **override))


def test_steered_layer_must_be_cached(config):
    with pytest.raises(ConfigError, match=r"layer: 7 is not in layers \[1, 2\]"):
        layers_of(experiment(config, layers=[1, 2]))


def test_layer_without_an_sae(config):
    raw = copy.deepcopy(config)
    raw["models"]["gpt2"]["sae"]["id"] = "blocks.{layer}.hook_resid_post"
    with pytest.raises(ConfigError, match=r"no SAE for 7; there are \[11\]"):
        layers_of(experiment(raw))
    raw["models"]["gpt2"]["sae"]["id"] = "blocks.{layer}.hook_nothing"
    for layer in ("auto", 7):
        with pytest.raises(
            ConfigError, match=r"no 'blocks\.\{layer\}\.hook_nothing'; it has 13, such"
        ):
            layers_of(experiment(raw, layer=layer))
    raw["models"]["gpt2"]["sae"] = {"path": "nowhere/{layer}"}
    with pytest.raises(ConfigError, match=r"nowhere/\{layer\}/cfg\.json is there for no layer"):
        layers_of(experiment(raw))


def test_sae_of_another_model(hub, config):
    raw = copy.deepcopy(config)
    raw["models"]["gpt2"]["sae"] = raw["models"]["gemma"]["sae"]
    with pytest.raises(ModelError, match=r"width 2304, gpt2 has 96"):
        fetch_experiment(experiment(raw, layers=[7]))


def test_sae_at_another_layer_than_it_says(tmp_path, config):
    from test_sparse_autoencoder import standard

    from steering_core.models.fetch import _check_fit
    from steering_core.models.sae_source import load_sae_shape

    standard().save_model(str(tmp_path / "layer_2"))  # its own metadata says layer 1
    raw = copy.deepcopy(config)
    raw["models"]["gpt2"]["sae"] = {"path": str(tmp_path / "layer_{layer}")}
    model = experiment(raw, layer="auto").model
    shape = ModelShape(4, 8, 64, "model.layers", "LlamaForCausalLM")
    with pytest.raises(ModelError, match="not at layer 2"):
        _check_fit(load_sae_shape(model.sae, 2), 2, shape, model)


@pytest.fixture
def no_weights(monkeypatch):
    """Fails the test as soon as weights would be downloaded."""
    refuse = pytest.fail
    for name in ("fetch_weights", "load_sae"):
        monkeypatch.setattr(fetch, name, lambda *_: refuse("weights before all was checked"))


@pytest.mark.usefixtures("no_weights")
def test_wrong_classifier_label(hub, config):
    raw = copy.deepcopy(config)
    raw["tasks"]["sst2"]["classifier"][0]["label"] = "GREAT"
    with pytest.raises(ConfigError, match=r"no 'GREAT'.*NEGATIVE.*POSITIVE"):
        fetch_experiment(experiment(raw, layers=[7]))


@pytest.mark.usefixtures("no_weights")
def test_missing_classifier(hub, config):
    raw = copy.deepcopy(config)
    raw["tasks"]["sst2"]["classifier"][0]["model"] = "nobody/judge"
    with pytest.raises(ModelError, match="nobody/judge is not on the hub"):
        fetch_experiment(experiment(raw, layers=[7]))


@pytest.mark.usefixtures("no_weights")
def test_a_classifier_directory_without_a_model(hub, config, tmp_path):
    raw = copy.deepcopy(config)
    raw["tasks"]["sst2"]["classifier"][0]["model"] = str(tmp_path)
    with pytest.raises(ModelError, match="holds no model that transformers can read"):
        fetch_experiment(experiment(raw, layers=[7]))


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize("override", [{"new_tokens": 256}, {"max_tokens": 257}])
def test_more_tokens_than_the_context(hub, config, override):
    (key,) = override
    with pytest.raises(ConfigError, match=rf"{key}: \d+ exceeds the context 256"):
        fetch_experiment(experiment(config, layers=[7], **override))


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"rows_per_class": 8}, "too few rows"),
        ({"max_tokens": 30}, "texts are longer than max_tokens 30"),
    ],
)
def test_rows_that_cannot_serve(hub, config, tmp_path, caplog, override, message):
    found = experiment(config, layers=[7], **override)
    settings = found.settings.model_dump()
    with pytest.raises(SystemExit):
        run_stage(
            "fetch.py",
            tmp_path,
            input={"concept": str(ROOT / found.task.concept)},
            output={name: str(tmp_path / name) for name in ("resources", "dataset")},
            params={
                "model": found.model.model_dump(exclude={"settings"}),
                "task": found.task.model_dump(exclude={"settings"}),
                "settings": settings,
                "examples": settings,
                "device": "cpu",
            },
            experiment=found.name,
        )
    assert message in caplog.text


def test_local_directories_are_pinned_by_content(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_text("1")
    (tmp_path / "y").write_text("2")
    first = named_digest(tmp_path)
    assert pin(str(tmp_path), "main") == first and first.startswith("sha256:")
    (tmp_path / "y").write_text("3")
    changed = named_digest(tmp_path)
    (tmp_path / "y").write_text("2")
    assert named_digest(tmp_path) == first
    (tmp_path / "y").rename(tmp_path / "z")
    assert len({first, changed, named_digest(tmp_path)}) == 3


def test_a_classifier_that_cannot_pad_is_refused_before_any_text_is_made(hub, config, monkeypatch):
    bare = SimpleNamespace(pad_token=None)
    stand_in = SimpleNamespace(from_pretrained=lambda *_, **__: bare)
    monkeypatch.setattr(fetch, "AutoTokenizer", stand_in)
    with pytest.raises(ModelError, match="this classifier has no padding token"):
        fetch_experiment(experiment(config, layers=[7]))
