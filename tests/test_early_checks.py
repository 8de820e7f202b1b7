"""Everything that is wrong and can be known without a network is listed at once."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from steering_core.config.resolve import resolve
from steering_core.early_checks import check_before_any_job, check_effect_layers, main
from steering_core.early_checks.offline import CONTEXTS
from steering_core.errors import ConfigError

SAE = {
    "architecture": "standard",
    "d_in": 8,
    "d_sae": 16,
    "dtype": "float32",
    "metadata": {
        "sae_lens_version": "6.0.0",
        "hook_name": "blocks.1.hook_resid_post",
        "prepend_bos": True,
    },
}
CONCEPT = {
    "concept": "warmth",
    "prompts": ["The room was", "That day we"],
    "validation_prompts": ["Her hands were"],
    "contrast": [{"positive": f"warm {i}", "negative": f"cold {i}"} for i in range(2)],
    "personas": {"positive": "You are warm. ", "negative": "You are cold. "},
    "queries": ["How was it?", "What then?"],
}
SETTINGS = {"layer": 1, "n_prompts": 2, "n_validation_prompts": 1, "probe_folds": 2}


@pytest.fixture
def world(tmp_path: Path, monkeypatch) -> Path:
    """An experiment of local files in which nothing is wrong."""
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"text number {i},{i % 2}\n" for i in range(80))
    Path("rows.csv").write_text("text,label\n" + rows)
    Path("concept.yaml").write_text(yaml.safe_dump(CONCEPT))
    Path("words.json").write_text(json.dumps({"positive": ["warm"], "negative": ["cold"]}))
    Path("model").mkdir()
    Path("model/config.json").write_text(json.dumps({"num_hidden_layers": 4}))
    Path("saes/layer_1").mkdir(parents=True)
    Path("saes/layer_1/cfg.json").write_text(json.dumps(SAE))
    Path("saes/layer_1/sae_weights.safetensors").touch()
    return tmp_path


def problems(settings=(), task=(), made=lambda _: False, sae=None) -> list[str]:
    raw = {
        "models": {"m": {"id": "./model", "sae": sae or {"path": "saes/layer_{layer}"}}},
        "tasks": {
            "t": {
                **{"dataset": "rows.csv", "text": "text", "label": "label"},
                **{"concept": "concept.yaml", "classifier": {"lexicon": "words.json"}},
                **dict(task),
            }
        },
        "experiments": {"e": {"model": "m", "task": "t", "settings": SETTINGS | dict(settings)}},
    }
    found = resolve(raw, "e")
    try:
        check_before_any_job(found, found.task.dataset, made)
    except ConfigError as error:
        listed = str(error).split("\n  - ")
        assert len(listed) == 1 or listed[0] == f"e has {len(listed) - 1} problems:"
        return listed[1:] or listed
    return []


def test_a_sound_experiment_has_no_problems(world: Path):
    assert problems() == []
    assert problems({"layer": "auto"}) == []


def test_layers_are_tried_only_with_a_judge_and_with_their_saes(world: Path):
    tried = {"layer": "effect", "effect_layers": [1, 2], "layers": "all"}
    found = problems(tried, {"classifier": None})
    assert any("needs a judge of completions" in problem for problem in found)
    assert any("no directory saes/layer_2" in problem for problem in problems(tried))
    found = problems({**tried, "effect_layers": [1, 9]})
    assert any("no layer 9" in problem for problem in found)
    check_effect_layers([1], [0, 1])
    with pytest.raises(ConfigError, match="layer 2 has no SAE; layers that have one: 0, 1"):
        check_effect_layers([1, 2], [0, 1])


def sae_without_metadata():
    Path("saes/layer_1/cfg.json").write_text(json.dumps({**SAE, "metadata": {}}))


def concept_without_roles():
    kept = {key: CONCEPT[key] for key in ("concept", "prompts", "personas")}
    Path("concept.yaml").write_text(yaml.safe_dump(kept))


def positions(n: int, **further):
    text = {"num_hidden_layers": 4, "n_positions": n}
    Path("model/config.json").write_text(json.dumps({"text_config": text, **further}))


def fetched(model: str, n: int):
    Path("results/e").mkdir(parents=True)
    found = {"model": {"id": model}, "shape": {"context": n}}
    Path("results/e/resources.json").write_text(json.dumps(found))


WRONG = {
    "paths": (lambda: Path("words.json").unlink(), {}, {}, ["there is no file words.json"]),
    "columns": (
        lambda: None,
        {},
        {"text": "txt", "label": "y"},
        ["no column 'txt'; it has ['text', 'label']. It has no column 'y' either."],
    ),
    "classes": (lambda: None, {}, {"positive_label": 7}, ["two classes are needed"]),
    "rows of a class": (lambda: None, {"probe_folds": 30}, {}, ["too few rows: the "]),
    "prompts": (
        lambda: None,
        {"n_prompts": 3, "n_validation_prompts": 5},
        {},
        ["n_prompts: 3 are asked for", "n_validation_prompts: 5 are asked for"],
    ),
    "roles": (concept_without_roles, {}, {}, ["contrast: is missing", "queries: is missing"]),
    "lexicon": (
        lambda: Path("words.json").write_text('{"positive": ["two words"], "negative": []}'),
        {},
        {},
        ["can match no word"],
    ),
    "model": (
        lambda: Path("model/config.json").unlink(),
        {},
        {},
        ["the model ./model has no config.json"],
    ),
    "layer": (
        lambda: None,
        {"layers": [1, 4]},
        {},
        ["no directory saes/layer_4", "the layers 0 to 3, so there is no layer 4"],
    ),
    "SAE": (sae_without_metadata, {}, {}, ['"hook_name": "blocks.L.hook_resid_pre"']),
    "SAE's kind": (
        lambda: Path("saes/layer_1/cfg.json").write_text(
            json.dumps({**SAE, "architecture": "transcoder"})
        ),
        {},
        {},
        ["transcoder"],
    ),
    "SAE's weights": (
        lambda: Path("saes/layer_1/sae_weights.safetensors").unlink(),
        {},
        {},
        ["no sae_weights.safetensors"],
    ),
    "new tokens": (lambda: positions(64), {"new_tokens": 64, "max_tokens": 64}, {}, ["new_tokens"]),
    "max tokens": (
        lambda: positions(64),
        {"new_tokens": 9},
        {},
        ["max_tokens: 128 exceeds the 64"],
    ),
    "new tokens after a fetch": (
        lambda: fetched("./model", 64),
        {"new_tokens": 99, "max_tokens": 9},
        {},
        ["new_tokens: 99 leave no room for a prompt in the 64 positions of ./model"],
    ),
}


@pytest.mark.parametrize(("spoil", "settings", "task", "said"), WRONG.values(), ids=WRONG)
def test_each_kind_of_problem_is_found(world: Path, spoil, settings, task, said):
    spoil()
    found = problems(settings, task)
    assert len(found) == len(said)
    for line, words in zip(found, said, strict=True):
        assert words in line


def test_all_problems_are_listed_at_once(world: Path):
    sae_without_metadata()
    concept_without_roles()
    Path("model/config.json").unlink()
    found = problems({}, {"text": "txt"})
    assert len(found) == 5
    assert all("\n" not in line for line in found)
    assert "hook_name" in found[-1] and "prepend_bos" in found[-1]


def test_what_a_rule_makes_is_not_looked_at(world: Path):
    Path("rows.csv").write_text("old,file\n1,2\n")
    sae_without_metadata()
    assert len(problems()) == 2
    assert problems(made=lambda name: name == "rows.csv" or name.startswith("saes")) == []


def test_texts_that_fit_the_model_and_another_model_of_an_earlier_run_are_no_problem(world: Path):
    positions(64)
    assert problems({"new_tokens": 63, "max_tokens": 64}) == []
    Path("model/config.json").write_text(json.dumps({"num_hidden_layers": 4}))
    fetched("org/other", 8)
    assert problems({"new_tokens": 99}) == []
    Path("results/e/resources.json").write_text("{")  # it can be fetched again
    assert problems({"new_tokens": 99}) == []


def test_the_positions_are_read_from_the_keys_that_loading_reads():
    from steering_core.models import language_model

    assert CONTEXTS == language_model._CONTEXTS


def trained(**more):
    texts = [{"dataset": "rows.csv", "text": "text"}]
    return {"layers": [1], "d_sae": 16, "k": 2, "tokens": 600, "texts": texts, **more}


@pytest.mark.parametrize(
    ("train", "said"),
    [
        (trained(), []),
        (trained(tokens=1200), ["the 80 different texts of sae.train.texts cannot have more than"]),
        (trained(max_tokens=4), ["cannot have more than 320"]),
        (trained(texts=[{"dataset": "rows.csv", "text": "txt"}]), ["has no column 'txt'; it has"]),
        (trained(tokens=1200, texts=[{"dataset": "org/texts", "text": "text"}]), []),
    ],
)
def test_texts_that_cannot_train_an_sae_are_found(world: Path, train, said):
    found = problems(sae={"train": {"batch_size": 8, **train}})
    assert len(found) == len(said)
    assert all(words in line for words, line in zip(said, found, strict=True))


def test_the_checks_import_no_model_library(world: Path):
    code = (
        "import sys, steering_core.early_checks, steering_core.models.sae_metadata, "
        "steering_core.data.build, steering_core.data.labelled\n"
        "print([name for name in ('torch', 'transformers', 'sae_lens', 'datasets') "
        "if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


# ------------------------------------------------------------------------------- the hub
ROOT = Path(__file__).resolve().parents[1]
HUB = ROOT.parent / "shared" / "hub"


@pytest.fixture
def small_hub(tmp_path):
    """A hub of an open and a gated model, and of an open dataset; its address."""
    if not (HUB / "serve.py").is_file():
        pytest.skip("../shared/hub is absent: there is no server to ask")
    spec = importlib.util.spec_from_file_location("hub_serve_small", HUB / "serve.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    root = tmp_path / "hub"
    for name in ("models/org/open", "models/org/gated"):
        (root / name).mkdir(parents=True)
        (root / name / "config.json").write_text(json.dumps({"model_type": "gpt2", "n_layer": 2}))
    (root / "datasets/org/rows").mkdir(parents=True)
    (root / "datasets/org/rows/train.csv").write_text("text,label\na,0\n")
    (root / "gated.txt").write_text("org/gated secret\n")
    server = module.serve(str(root), 0)
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


def asked(address: str, directory: Path, *arguments: str, **more: str):
    environment = {**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(directory / "home"), **more}
    return subprocess.run(
        [sys.executable, "-m", "steering_core.early_checks", *arguments],
        cwd=directory,
        env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )


def test_gated_missing_and_wrong_repositories_of_several_experiments_are_one_list(world, small_hub):
    task = {"dataset": "rows.csv", "text": "text", "label": "label", "concept": "concept.yaml"}
    sae = {"path": "saes/layer_{layer}"}
    raw = {
        "models": {
            "gated": {"id": "org/gated", "sae": sae},
            "absent": {"id": "org/absent", "sae": sae},
            "old": {"id": "org/open", "revision": "v9", "sae": sae},
        },
        "tasks": {
            "plain": task,
            "judged": {**task, "classifier": {"model": "org/none", "label": "GOOD"}},
            "hub": {**task, "dataset": "org/nothing"},
        },
        "experiments": {
            "one": {"model": "gated", "task": "judged", "settings": SETTINGS},
            "two": {"model": "absent", "task": "hub", "settings": SETTINGS},
            "three": {"model": "old", "task": "plain", "settings": {**SETTINGS, "n_prompts": 9}},
        },
    }
    Path("config.yaml").write_text(yaml.safe_dump(raw))
    done = asked(small_hub, world, "one", "two", "three")
    assert done.returncode == 1, done.stderr
    one, two, three = re.split(r"^(?:one|two|three):$", done.stdout, flags=re.M)[1:]
    assert "org/gated is gated: accept its licence" in one and "org/none is not on the hub" in one
    assert "org/absent is not on the hub" in two and "org/nothing is not on the hub" in two
    assert "org/open has no such revision" in three and "n_prompts: 9 are asked for" in three
    assert [part.count("\n  - ") for part in (one, two, three)] == [2, 2, 2]
    assert len(list((world / "home").rglob("*.safetensors"))) == 0

    offline = asked(small_hub, world, "one", "two", "--offline")
    assert (offline.returncode, offline.stdout) == (0, "nothing is wrong with one, two\n")
    allowed = asked(small_hub, world, "one", HF_TOKEN="secret")
    assert "gated" not in allowed.stdout and "org/none is not on the hub" in allowed.stdout


def test_the_hub_says_how_many_positions_a_model_has(world, small_hub):
    task = {"dataset": "rows.csv", "text": "text", "label": "label", "concept": "concept.yaml"}
    sae = {"train": {"batch_size": 8, **trained()}}
    raw = {
        "models": {"open": {"id": "org/open", "sae": sae}},
        "tasks": {"plain": task},
        "experiments": {
            "long": {"model": "open", "task": "plain", "settings": {**SETTINGS, "new_tokens": 2000}}
        },
    }
    Path("config.yaml").write_text(yaml.safe_dump(raw))
    done = asked(small_hub, world, "long")
    assert "new_tokens: 2000 leave no room for a prompt in the 1024 positions" in done.stdout


def test_the_command_lists_faults_of_the_configuration_too(world, capsys):
    Path("config.yaml").write_text("models: {}\ntasks: {}\nexperiments: {}\n")
    assert main(["mine", "--offline"]) == 1
    assert "the configuration:\n  - " in capsys.readouterr().out
    assert main(["mine", "--configfile", "nowhere.yaml"]) == 1
    assert "there is no file nowhere.yaml" in capsys.readouterr().out
