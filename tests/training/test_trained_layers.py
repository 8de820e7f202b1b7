"""SAEs trained by the rules: the texts, one layer's job, its files and its numbers."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from sae_lens import SAE
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoTokenizer

from steering_core.activations.cache import cache_activations
from steering_core.activations.manifest import expected_rows, origin, write_manifest
from steering_core.config.model import BY_COUNT, Model, SAESource, SAETraining
from steering_core.demo.grammar import write_corpus
from steering_core.demo.language_model import train_language_model
from steering_core.errors import ConfigError, DataError, ModelError
from steering_core.models.language_model import load_tokenizer
from steering_core.models.resources import cached_sites, fetched_model
from steering_core.models.sparse_autoencoder import load_sae
from steering_core.storage.parquet import write_parquet
from steering_core.tables.columns import column_names, made_table
from steering_core.training.evaluate_sae import measure_texts
from steering_core.training.texts import choose_texts, describe_training, read_texts, with_sites
from steering_core.training.train_sae import TRAINERS, batches, read_split, train_layer, train_sae

TINY = {"d_model": 16, "n_layers": 2, "n_heads": 2, "n_steps": 40, "batch_size": 16}
TRAINING = {"layers": [1, 0], "d_sae": 32, "k": 4, "tokens": 3000, "samples": 20_000}


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> SimpleNamespace:
    folder = tmp_path_factory.mktemp("world")
    corpus = folder / "corpus.parquet"
    write_corpus(corpus, 400, 0)
    train_language_model(corpus, folder / "model", **TINY, context_size=64, seed=1)
    training = SAETraining(
        **TRAINING,
        batch_size=64,
        max_tokens=32,
        texts=[{"dataset": str(corpus), "text": "text"}],
    )
    model = Model(id=str(folder / "model"), sae={"train": training.model_dump()})
    found = describe_training(model, training, "float32")
    texts, datasets = read_texts(training.texts)
    table = choose_texts(
        texts,
        load_tokenizer(model),
        prepend_bos=True,
        tokens=training.tokens,
        max_tokens=training.max_tokens,
        seed=0,
    )
    resources = with_sites({**found, "dataset": datasets}, training.layers)
    write_parquet(folder / "texts.parquet", table)
    lm = fetched_model(model.model_dump(), resources, "cpu")
    made_from = origin(resources, folder / "texts.parquet", training.max_tokens, "all")
    cache_activations(
        lm,
        table,
        cached_sites(resources),
        folder / "part-0.parquet",
        max_tokens=training.max_tokens,
        batch_tokens=512,
        positions="all",
        metadata=made_from,
    )
    rows = expected_rows(folder / "texts.parquet", "all")
    write_manifest([folder / "part-0.parquet"], folder / "manifest.json", rows, made_from)
    return SimpleNamespace(**locals())


def train(world: SimpleNamespace, folder: Path, layer: int) -> tuple[Path, dict]:
    sae, measured = folder / f"layer_{layer}", folder / f"layer_{layer}.json"
    train_layer(
        world.training,
        layer,
        world.resources,
        world.folder / "manifest.json",
        world.folder / "texts.parquet",
        sae,
        measured,
        name="tiny",
        load=lambda: world.lm,
        device="cpu",
    )
    return sae, json.loads(measured.read_text())


@pytest.fixture(scope="module")
def trained(world, tmp_path_factory) -> tuple[Path, dict]:
    return train(world, tmp_path_factory.mktemp("saes"), 1)


def test_the_sae_loads_as_a_local_one_with_its_metadata(world, trained):
    folder, _ = trained
    found = load_sae(SAESource(path=str(folder.parent / "layer_{layer}")), 1)
    assert found.site == cached_sites(world.resources)[1]
    metadata = found.sae.cfg.metadata
    assert metadata.model_name == world.model.id and metadata.context_size == 32
    assert metadata.training["k"] == 4 and metadata.training_tokens >= 3000
    np.testing.assert_allclose(np.linalg.norm(found.decoder, axis=1), 1, atol=1e-5)


def test_one_seed_gives_the_same_bytes(world, trained, tmp_path):
    folder, row = trained
    again, same = train(world, tmp_path, 1)
    assert same == row
    for name in ("cfg.json", "sae_weights.safetensors"):
        assert (again / name).read_bytes() == (folder / name).read_bytes()


@torch.no_grad()
def measure(sae: SAE, activations: torch.Tensor) -> dict[str, float]:
    """L0, explained variance and dead features by their definitions, of all tokens at once."""
    features = sae.encode(activations)
    error = (sae.decode(features) - activations).pow(2).sum()
    active = features > 0
    return {
        "l0": float(active.sum(1).double().mean()),
        "explained_variance": float(1 - error / (activations - activations.mean(0)).pow(2).sum()),
        "dead_features": int((~active.any(0)).sum()),
    }


def test_numbers_are_those_of_held_out_tokens(world, trained):
    folder, row = trained
    assert set(row) == set(column_names("sparse_autoencoders"))
    from steering_core.activations.reader import ActivationCache

    cache = ActivationCache(world.folder / "manifest.json")
    held, text_of = read_split(
        cache, world.table, row["hook_name"], "held_out", torch.float32, bos=True
    )
    sae = SAE.load_from_disk(folder)
    plain = measure(sae, held)
    assert row["n_held_out_tokens"] == len(held)
    for name in ("l0", "explained_variance"):
        assert row[name] == pytest.approx(plain[name], rel=1e-4)
        assert row[f"{name}_low"] <= row[name] <= row[f"{name}_high"]
    assert row["dead_features"] == plain["dead_features"]
    assert len(np.unique(text_of)) == (world.table["split"] == "held_out").sum()
    assert row["explained_variance"] > 0.5
    assert row["loss"] < row["loss_spliced"] < row["loss_zero"]
    expected = (row["loss_zero"] - row["loss_spliced"]) / (row["loss_zero"] - row["loss"])
    assert row["loss_recovered"] == pytest.approx(expected, rel=1e-6)


def test_the_cache_holds_every_token_but_bos_of_its_split(world):
    from steering_core.activations.reader import ActivationCache

    cache = ActivationCache(world.folder / "manifest.json")
    name = "blocks.0.hook_resid_post"
    parts = [
        read_split(cache, world.table, name, split, torch.float32, bos=True)[0]
        for split in ("train", "held_out")
    ]
    assert sum(map(len, parts)) == world.table["n_tokens"].sum() - len(world.table)
    assert len(parts[0]) >= 3000 and len(parts[1]) >= 300


def test_an_sae_is_trained_on_the_bridges_resid_post_of_whole_texts(world):
    """By another library, a text at a time: no padding, no BOS, in the order of the table."""
    from steering_core.activations.reader import ActivationCache

    cache = ActivationCache(world.folder / "manifest.json")
    bridge = TransformerBridge.boot_transformers(world.model.id, device="cpu")
    tokenizer = AutoTokenizer.from_pretrained(world.model.id)
    texts = world.table[world.table["split"] == "train"]["text"].head(5)
    for layer in (0, 1):
        name = f"blocks.{layer}.hook_resid_post"
        found, text_of = read_split(cache, world.table, name, "train", torch.float32, bos=True)
        for i, text in enumerate(texts):
            ids = tokenizer(text, return_tensors="pt")["input_ids"][:, :32]
            with torch.no_grad():
                _, streams = bridge.run_with_cache(ids, names_filter=[name])
            expected = streams[name][0, 1:]
            np.testing.assert_allclose(found[text_of == i], expected, atol=1e-4, rtol=1e-4)


def test_splits_share_no_text(world):
    by_split = world.table.groupby("split")["text"].agg(set)
    assert not by_split["train"] & by_split["held_out"]


def test_too_little_text_is_an_error_with_both_numbers(world):
    with pytest.raises(DataError, match=r"100 different texts.*have \d+ tokens.*lower tokens"):
        choose_texts(
            world.texts[:100],
            load_tokenizer(world.model),
            prepend_bos=True,
            tokens=10**6,
            max_tokens=32,
            seed=0,
        )


def test_a_layer_that_is_not_there_is_an_error(world):
    wrong = world.training.model_copy(update={"layers": [0, 2]})
    with pytest.raises(ConfigError, match=r"layers: 2 is out of range.*2 layers"):
        describe_training(world.model, wrong, "float32")
    with pytest.raises(ConfigError, match=r"layers: 2 is out of range"):
        with_sites(world.found, [2])


def test_a_column_that_is_not_there_is_an_error(world):
    source = world.training.texts[0].model_copy(update={"text": "txt"})
    with pytest.raises(DataError, match="no column 'txt'"):
        read_texts([source])


def test_columns_are_joined_and_a_text_is_there_once(tmp_path):
    pd.DataFrame({"q": ["a", "a", " "], "r": ["b", "b", None]}).to_csv(
        tmp_path / "t.csv", index=False
    )
    source = {"dataset": str(tmp_path / "t.csv"), "text": ["q", "r"]}
    training = SAETraining(**{**TRAINING, "texts": [source]})
    assert read_texts(training.texts)[0] == ["a\nb"]


def test_nan_is_an_error():
    with pytest.raises(ModelError, match=r"NaN or infinite.*learning_rate"):
        train_sae(
            torch.full((64, 4), torch.nan),
            d_sae=8,
            sparsity=2.0,
            metadata={"hook_name": "blocks.0.hook_resid_post", "prepend_bos": True},
            n_samples=64,
            batch_size=32,
        )


@pytest.mark.parametrize("architecture", TRAINERS)
def test_every_trainer_gives_an_sae_that_runs_here(architecture, tmp_path):
    from steering_core.training.train_sae import save_sae

    generator = torch.Generator().manual_seed(0)
    sae = train_sae(
        torch.randn(512, 8, generator=generator),
        d_sae=16,
        sparsity=4.0 if architecture in BY_COUNT else 0.1,
        metadata={"hook_name": "blocks.0.hook_resid_post", "prepend_bos": True},
        architecture=architecture,
        n_samples=1024,
        batch_size=64,
    )
    save_sae(sae, tmp_path / "layer_0")
    found = load_sae(SAESource(path=str(tmp_path / "layer_{layer}")), 0)
    assert found.d_sae == 16
    numbers = measure_texts(
        found.sae, torch.randn(64, 8, generator=generator), np.arange(64) // 4, seed=0
    )
    assert numbers["n_held_out_texts"] == 16


def test_batches_are_a_shuffle_of_all_rows():
    rows = torch.arange(10.0)[:, None]
    given = batches(rows, 5, 0)
    epoch = torch.cat([next(given), next(given)])
    assert sorted(epoch[:, 0].tolist()) == list(range(10))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"k": None}, "batchtopk needs k"),
        ({"architecture": "standard"}, "standard needs sparsity"),
        ({"k": 64}, "k is 64.* d_sae is 32"),
        ({"layers": [1, 1]}, "twice"),
        ({"tokens": 10}, "below batch_size"),
        ({"architecture": "topk", "k": 2.5}, "whole number"),
        ({"architecture": "matching_pursuit", "k": 2.5}, "whole number"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        SAETraining(**{**TRAINING, "texts": [{"dataset": "d", "text": "t"}], **changes})


def test_the_table_has_a_row_a_layer(trained):
    _, row = trained
    table = made_table([{**row, "layer": 0}, row], "sparse_autoencoders")
    assert list(table["layer"]) == [0, 1] and table["k"].tolist() == [row["k"]] * 2
