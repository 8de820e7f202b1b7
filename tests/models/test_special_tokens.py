"""All combinations of BOS, pad and end token with what an SAE says of BOS, from fetch to cache."""

import copy
from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch
from bos_worlds import (
    BOS,
    EOS,
    FIRST_WORD,
    PAD,
    configuration,
    save_model,
    save_sae,
    special_tokenizer,
    write_task,
)
from stage_scripts import run_stage
from steered_generation import continuations

from steering_core.activations.manifest import write_manifest
from steering_core.activations.reader import ActivationCache
from steering_core.config.model import Model, SAESource
from steering_core.config.resolve import resolve
from steering_core.errors import ModelError
from steering_core.generation.sampling import Sampling
from steering_core.models.language_model import load_language_model, load_tokenizer
from steering_core.models.site import Site
from steering_core.models.tokens import check_special_tokens, count_tokens, pad, tokenize
from steering_core.storage.files import read_json

FLAGS = (True, False)
PADDED = [(bos, pad_, eos) for bos, pad_, eos in product(FLAGS, repeat=3) if pad_ or eos]
UNPADDED = [(bos, False, False) for bos in FLAGS]
SAE = SAESource(path="unused/layer_{layer}")


def ids_of(text: str) -> list[int]:
    return [FIRST_WORD + int(word[1:]) for word in text.split()]


@pytest.fixture(scope="module")
def world(tiny_model, tmp_path_factory):
    """Models and SAEs of every kind, and a task."""
    folder = tmp_path_factory.mktemp("bos")
    for has in PADDED + UNPADDED:
        save_model(
            tiny_model, folder / name_of(has), **dict(zip(("bos", "pad", "eos"), has, strict=True))
        )
    for prepend_bos in FLAGS:
        save_sae(folder / f"sae_{prepend_bos}", prepend_bos=prepend_bos)
    return folder, write_task(folder)


def name_of(has: tuple[bool, bool, bool]) -> str:
    return "model_" + "".join(str(int(flag)) for flag in has)


def fetch(world, has, prepend_bos, out):
    """Run the fetch stage and return the experiment."""
    folder, task = world
    model = {
        "id": str(folder / name_of(has)),
        "sae": {"path": str(folder / f"sae_{prepend_bos}" / "layer_{layer}")},
    }
    experiment = resolve(configuration({"mine": model}, task), "mine_words")
    settings = experiment.settings.model_dump()
    run_stage(
        "fetch.py",
        out,
        input={"concept": task["concept"]},
        output={"resources": out / "resources.json", "dataset": out / "dataset.parquet"},
        params={
            "model": experiment.model.model_dump(),
            "task": experiment.task.model_dump(),
            "settings": settings,
            "examples": settings,
            "device": "cpu",
        },
        experiment="mine_words",
    )
    return experiment


@pytest.mark.parametrize("has", PADDED, ids=name_of)
@pytest.mark.parametrize("prepend_bos", FLAGS)
def test_every_combination_is_cached_as_sae_lens_reads_it(world, has, prepend_bos, tmp_path, tiny):
    experiment = fetch(world, has, prepend_bos, tmp_path)
    settings = experiment.settings.model_dump()
    log = (tmp_path / "logs" / "log").read_text(encoding="utf-8")
    said = [line for line in log.splitlines() if "no BOS token" in line]
    assert len(said) == (prepend_bos and not has[0])
    for line in said:
        assert experiment.model.id in line and "sae_True/layer_1" in line
    resources = read_json(tmp_path / "resources.json")
    common = {"model": experiment.model.model_dump(), "settings": settings}
    run_stage(
        "examples.py",
        tmp_path,
        input={
            "resources": tmp_path / "resources.json",
            "dataset": tmp_path / "dataset.parquet",
            "concept": experiment.task.concept,
        },
        output={"examples": tmp_path / "examples.parquet", "summary": tmp_path / "examples.json"},
        params={**common, "task": experiment.task.model_dump()},
    )
    run_stage(
        "cache_activations.py",
        tmp_path,
        input={
            "resources": tmp_path / "resources.json",
            "examples": tmp_path / "examples.parquet",
        },
        output={"part": tmp_path / "part-0.parquet"},
        params=common,
        shard="0",
    )
    examples = pd.read_parquet(tmp_path / "examples.parquet")
    front = [BOS] if prepend_bos and has[0] else []
    expected = [front + ids_of(text) for text in examples["text"]]
    assert examples["n_tokens"].tolist() == [len(row) for row in expected]
    assert resources["saes"][0]["prepend_bos"] is prepend_bos
    part = pd.read_parquet(tmp_path / "part-0.parquet").set_index("example_id")
    cached = part.loc[examples["example_id"]]
    assert cached["token_id"].tolist() == [row[-1] for row in expected]
    assert cached["position"].tolist() == [len(row) - 1 for row in expected]
    write_manifest([tmp_path / "part-0.parquet"], tmp_path / "manifest.json", len(examples))
    rows = ActivationCache(tmp_path / "manifest.json").matrix(
        "blocks.1.hook_resid_post", examples["example_id"].tolist()
    )
    model = copy.deepcopy(tiny.model)  # transformers leaves hooks behind that read hidden states
    for ids, row in list(zip(expected, rows, strict=True))[:4]:
        alone = model(input_ids=torch.tensor([ids]), output_hidden_states=True)
        torch.testing.assert_close(torch.tensor(row), alone.hidden_states[2][0, -1])


@pytest.mark.parametrize("has", UNPADDED, ids=name_of)
def test_the_fetch_stage_reports_a_missing_pad_token(world, has, tmp_path, caplog):
    with pytest.raises(SystemExit):
        fetch(world, has, True, tmp_path)
    log = (tmp_path / "logs" / "log").read_text(encoding="utf-8")
    assert f"{name_of(has)}: the tokenizer has neither a pad nor an end token" in log
    assert not (tmp_path / "dataset.parquet").exists()


@pytest.mark.parametrize("has", PADDED, ids=name_of)
@pytest.mark.parametrize("prepend_bos", FLAGS)
def test_padding_and_bos_are_never_steered_nor_seen(world, has, prepend_bos):
    """A batch of two lengths writes what each prompt writes alone."""
    lm = load_language_model(Model(id=str(world[0] / name_of(has)), sae=SAE), "cpu")
    texts = ["w1 w2", "w3 w4 w5 w6 w7"]
    prompts = tokenize(lm.tokenizer, texts, prepend_bos=prepend_bos)
    front = [BOS] if prepend_bos and has[0] else []
    assert prompts == [front + ids_of(text) for text in texts]
    assert count_tokens(lm.tokenizer, texts, prepend_bos) == [len(row) for row in prompts]
    batch = pad(prompts, lm.tokenizer, side="left", prepend_bos=prepend_bos)
    assert batch.ids[0, 0] == (PAD if has[1] else EOS)
    assert batch.bos.sum(dim=1).tolist() == [len(front)] * 2
    assert batch.mask.sum(dim=1).tolist() == [len(row) for row in prompts]
    site = Site(1, "post", False, prepend_bos)
    vectors = np.random.default_rng(0).normal(size=(2, 32)).astype(np.float32)

    def write(chosen):
        return continuations(
            lm,
            [prompts[i] for i in chosen],
            [texts[i] for i in chosen],
            Sampling(new_tokens=4, temperature=None),
            site=site,
            vectors=vectors[chosen],
            positions="all",
        )

    both = write([0, 1])
    assert both.tokens == write([0]).tokens + write([1]).tokens
    new = [len(row) - 1 for row in both.tokens]
    assert both.steered.tolist() == [2 + new[0], 5 + new[1]]


def test_texts_that_name_special_tokens_are_counted_by_the_fetch_stage(world, tmp_path):
    folder, task = world
    lines = (folder / "rows.jsonl").read_text(encoding="utf-8")
    dirty = tmp_path / "rows.jsonl"
    dirty.write_text(lines.replace('{"text": "w', '{"text": "<eos> w', 3), encoding="utf-8")
    fetch((folder, {**task, "dataset": str(dirty)}), (True, True, True), True, tmp_path)
    log = (tmp_path / "logs" / "log").read_text(encoding="utf-8")
    assert log.count("texts name special tokens") == 1 and "3 of 100 texts" in log


def with_added(folder, **special: str):
    tokenizer = special_tokenizer()
    tokenizer.add_special_tokens(special)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_pad_token_without_an_embedding_row_is_replaced(tiny_model, tmp_path, tiny):
    """Tokenizers get a [PAD] without the model's embedding being resized."""
    folder = save_model(tiny_model, tmp_path / "model")
    model = Model(id=str(with_added(folder, pad_token="[PAD]")), sae=SAE)
    assert load_tokenizer(model).pad_token_id == tiny.model.config.vocab_size
    lm = load_language_model(model, "cpu")
    assert lm.tokenizer.pad_token_id == EOS
    made = [
        continuations(
            of,
            [[1, 5], [1, 5, 6, 7]],
            ["a", "b"],
            Sampling(new_tokens=3, temperature=None),
            site=Site(1, "post", False, True),
        ).tokens
        for of in (lm, tiny)
    ]
    assert made[0] == made[1]


@pytest.mark.parametrize("role", ["bos", "eos"])
def test_bos_or_end_without_an_embedding_row_is_refused_by_the_fetch_stage(world, role, tmp_path):
    folder, _ = world
    has = (True, True, True)
    token = {f"{role}_token": f"[{role}]"}
    moved = tmp_path / name_of(has)
    moved.symlink_to(with_added(save_model(folder / name_of(has), tmp_path / "model"), **token))
    for sae in folder.glob("sae_*"):
        (tmp_path / sae.name).symlink_to(sae)
    with pytest.raises(SystemExit):
        fetch((tmp_path, world[1]), has, True, tmp_path)
    log = (tmp_path / "logs" / "log").read_text(encoding="utf-8")
    assert f"the {role.upper()} token of the tokenizer has the id 64" in log
    with pytest.raises(ModelError, match="64 rows"):
        load_language_model(Model(id=str(moved), sae=SAE), "cpu")


def test_no_token_to_pad_with_has_an_embedding_row():
    with pytest.raises(ModelError, match="no other special token to pad with"):
        tokenizer = special_tokenizer(bos=False, eos=False)
        tokenizer.unk_token = None
        check_special_tokens(tokenizer, PAD, "some/model")
