"""The fetch stage of CorrSteer refuses SAEs that are not there, or cannot serve, with why."""

from pathlib import Path

import pandas as pd
import pytest
from sae_lens import TopKSAE, TopKSAEConfig
from sae_lens.saes.sae import SAEMetadata
from stage_scripts import run_stage

from steering_core.config.corrsteer_schema import CorrSteerSettings, CorrSteerTask
from steering_core.config.model import Model, SAESource
from steering_core.errors import ConfigError, ModelError
from steering_core.models import fetch
from steering_core.storage.files import read_json


def save_sae(folder, layer, **options):
    metadata = SAEMetadata(hook_name=f"blocks.{layer}.hook_resid_post", prepend_bos=True)
    config = TopKSAEConfig(d_in=32, d_sae=40, k=5, metadata=metadata, **options)
    TopKSAE(config).save_model(folder / f"layer_{layer}")


@pytest.fixture
def describe(tiny_model, tmp_path):
    model = Model(id=str(tiny_model), sae=SAESource(path=str(tmp_path / "layer_{layer}")))

    def call(layers="all", max_tokens=8):
        return fetch.describe(
            model,
            layers=layers,
            first_layer=1,
            max_tokens=max_tokens,
            new_tokens=2,
            texts_are_continued=True,
        )

    return call


@pytest.mark.parametrize("layers", ["all", [2]])
def test_no_layer_has_an_sae(describe, tmp_path, layers):
    with pytest.raises(ConfigError, match=r"layer_\{layer\}/cfg\.json is there for no layer"):
        describe(layers)
    (tmp_path / "layer_2").mkdir()
    (tmp_path / "layer_2" / "ae.pt").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"ae\.pt is, as dictionary_learning writes it"):
        describe(layers)


def test_the_first_layer_alone(describe, tmp_path):
    save_sae(tmp_path, 0)
    with pytest.raises(ConfigError, match=r"\[0\] is the only layer with an SAE"):
        describe()
    assert describe([0])["layers"] == [0]


def test_layers_with_a_usable_sae_are_described_and_others_refused(describe, tmp_path):
    save_sae(tmp_path, 1, rescale_acts_by_decoder_norm=True)
    save_sae(tmp_path, 3)
    found = describe()
    assert (found["layers"], found["layers_without_sae"]) == ([1, 3], [2])
    assert [sae["d_sae"] for sae in found["saes"]] == [40, 40]
    save_sae(tmp_path, 2, normalize_activations="expected_average_only_in")
    with pytest.raises(ModelError, match=r"layer_2 rescales its input \(expected_av"):
        describe()


def test_prompts_and_answers_share_the_context(describe, tmp_path):
    save_sae(tmp_path, 1)
    context = describe([1])["shape"]["context"]
    assert describe([1], max_tokens=None)["max_tokens"] == context - 2
    assert describe([1], max_tokens=context - 2)["max_tokens"] == context - 2
    with pytest.raises(ConfigError, match=f"and 2 new tokens exceed the context {context}"):
        describe([1], max_tokens=context - 1)


def fetch_stage(folder: Path, tiny_model, rows: int) -> dict:
    """Run the fetch stage on ``rows`` prompts and return what it found."""
    save_sae(folder, 1)
    prompts = [f"w{i} w{i + 1}" for i in range(rows)]
    pd.DataFrame({"prompt": prompts}).to_parquet(folder / "praise.parquet")
    settings = CorrSteerSettings(
        layers=[1], new_tokens=2, max_tokens=8, train_rows=2, validation_rows=2
    ).model_dump()
    run_stage(
        "corrsteer_fetch.py",
        folder,
        input={},
        output={"resources": folder / "resources.json", "rows": folder / "items.parquet"},
        params={
            "model": {"id": str(tiny_model), "sae": {"path": str(folder / "layer_{layer}")}},
            "task": CorrSteerTask(
                task="praise", dataset=str(folder / "praise.parquet")
            ).model_dump(),
            "settings": settings,
            "examples": settings,
            "device": "cpu",
            "seeds": [0],
        },
    )
    return read_json(folder / "resources.json")


def test_the_stage_fetches_rows_and_describes_the_model(tmp_path, tiny_model):
    found = fetch_stage(tmp_path, tiny_model, 40)
    assert found["layers"] == [1] and found["max_tokens"] == 8 and found["classifier"] is None
    assert found["dataset"]["id"] == str(tmp_path / "praise.parquet")
    items = pd.read_parquet(tmp_path / "items.parquet")
    assert len(items) == 40 and set(items["gold"]) == {"praise"}


def test_the_stage_checks_rows_before_it_downloads_weights(tmp_path, tiny_model, monkeypatch):
    monkeypatch.setattr(fetch, "download", lambda *_, **__: pytest.fail("weights before rows"))
    with pytest.raises(SystemExit):
        fetch_stage(tmp_path, tiny_model, 1)
    assert not (tmp_path / "items.parquet").exists()
