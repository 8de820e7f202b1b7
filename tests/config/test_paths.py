"""A path of the configuration that is neither here nor made by a rule is an error."""

import copy
from pathlib import Path

import pytest
from workflow_rules import CONFIG, parse

from steering_core.config.corrsteer_resolve import resolve_corrsteer
from steering_core.config.paths import (
    TABLES,
    check_paths,
    fixed_part,
    is_path,
    named_paths,
)
from steering_core.config.resolve import resolve
from steering_core.data.sources import READERS
from steering_core.errors import ConfigError

#: Paths of one experiment and what they are, all of them there.
MODEL = {"id": "./model", "sae": {"path": "saes/layer_{layer}/best"}}
TASK = {
    "dataset": "rows.csv",
    "text": "text",
    "label": "label",
    "concept": "texts/concept.yaml",
    "classifier": {"lexicon": "words.json"},
}


def nothing_made(_: str) -> bool:
    return False


@pytest.fixture
def world(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for folder in ("model", "saes/layer_2/best", "saes/layer_3/best", "texts", "a folder"):
        Path(folder).mkdir(parents=True)
    for file in ("rows.csv", "texts/concept.yaml", "words.json"):
        Path(file).touch()
    return tmp_path


def paths_of(found):
    return named_paths(found, found.task.dataset)


def experiment(model=(), task=(), settings=()):
    raw = copy.deepcopy(CONFIG)
    raw["models"]["m"] = {**MODEL, **dict(model)}
    raw["tasks"]["t"] = {**TASK, **dict(task)}
    raw["experiments"]["e"] = {"model": "m", "task": "t", "settings": dict(settings)}
    return paths_of(resolve(raw, "e"))


def corrsteer(dataset, model=(), settings=()):
    raw = copy.deepcopy(CONFIG)
    raw["corrsteer"]["models"]["m"] = {**MODEL, "paired": False, **dict(model)}
    raw["corrsteer"]["tasks"]["t"] = {"task": "praise", "paired": False, "dataset": dataset}
    raw["corrsteer"]["experiments"]["e"] = {"model": "m", "task": "t", "settings": dict(settings)}
    return named_paths(resolve_corrsteer(raw, "e"), dataset)


def test_paths_that_exist_pass(world: Path):
    for settings in {}, {"layer": 2}, {"layers": [2, 3]}, {"layer": 3, "layers": [2]}:
        check_paths(experiment(settings=settings), nothing_made)
    check_paths(experiment({"id": str(world / "model")}, {"dataset": "./texts"}), nothing_made)
    check_paths(corrsteer("rows.csv", settings={"layers": [2]}), nothing_made)


def test_names_on_the_hub_are_not_looked_for(world: Path):
    task = {"dataset": "org/rows", "classifier": {"model": "org/judge", "label": "X"}}
    for name in "gpt2", "org/model-1.5_x":
        model = {"id": name, "sae": {"release": "org/saes", "id": "layer_{layer}/16k"}}
        check_paths(experiment(model, task), nothing_made)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"task": {"concept": "/nowhere.yaml"}}, r"tasks\.t\.concept: there is no file /nowhere"),
        ({"task": {"concept": "texts"}}, r"tasks\.t\.concept: there is no file texts"),
        ({"task": {"dataset": "row.csv"}}, r"tasks\.t\.dataset: .*did you mean 'rows\.csv'"),
        ({"task": {"dataset": "a/b/c"}}, r"dataset: there is no file or directory a/b/c"),
        ({"task": {"classifier": {"lexicon": "word.json"}}}, r"lexicon: .*mean 'words\.json'"),
        (
            {"task": {"classifier": {"model": "../judge", "label": "X"}}},
            r"classifier\.model: there is no directory \.\./judge",
        ),
        ({"model": {"id": "/models/m"}}, r"models\.m\.id: there is no directory /models/m"),
        ({"model": {"id": "~/m"}}, r"home directory instead of ~"),
        ({"model": {"id": "results/m"}}, r"models\.m\.id: there is no directory results/m"),
        ({"model": {"sae": {"path": "sae/layer_{layer}"}}}, r"models\.m\.sae\.path: .*layer_\{"),
        ({"model": {"sae": {"path": "saes/layer_{layer}/last"}}}, r"layer_\{layer\}/last"),
        ({"settings": {"layers": [2, 5]}}, r"no directory saes/layer_5/best"),
        ({"settings": {"layer": 7}}, r"no directory saes/layer_7/best"),
    ],
)
def test_a_missing_path_is_reported_with_its_key(world: Path, changed, said):
    with pytest.raises(ConfigError, match=said):
        check_paths(experiment(**changed), nothing_made)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"dataset": "row.csv"}, r"corrsteer\.tasks\.t\.dataset: .*did you mean 'rows\.csv'"),
        ({"dataset": "rows.csv", "model": {"id": "/m"}}, r"corrsteer\.models\.m\.id: "),
        ({"dataset": "rows.csv", "model": {"sae": {"path": "gone/{layer}"}}}, r"m\.sae\.path"),
        ({"dataset": "rows.csv", "settings": {"layers": [4]}}, r"saes/layer_4/best"),
    ],
)
def test_a_missing_path_of_corrsteer_is_reported_with_its_key(world: Path, changed, said):
    with pytest.raises(ConfigError, match=said):
        check_paths(corrsteer(**changed), nothing_made)


def test_all_missing_paths_are_reported_at_once(world: Path):
    with pytest.raises(ConfigError, match=r"m\.id: .*t\.dataset: .*t\.concept: "):
        check_paths(experiment({"id": "/m"}, {"dataset": "x.csv", "concept": "c"}), nothing_made)


def test_a_path_that_a_rule_makes_may_be_missing(world: Path):
    made = parse().names["made_here"]
    for name in "demo", "gpt2_sst2":
        paths = paths_of(resolve(CONFIG, name))
        assert [made(fixed_part(one.path)) for one in paths] == [name == "demo"] * len(paths)
    check_paths(paths_of(resolve(CONFIG, "demo")), made)
    praise = "results/demo/praise_task.parquet"
    check_paths(named_paths(resolve_corrsteer(CONFIG, "demo_praise"), praise), made)
    # Asked for, these would be answered by the rule for what no rule makes.
    for path in "results/demo/other.yaml", "results/mine/concept.yaml", "results", "config.yaml":
        assert not made(path)
    for path in "results/models/demo/sparse_autoencoders/layer_1", "results/demo/pareto.csv":
        assert made(path)


@pytest.mark.parametrize(
    ("path", "fixed"),
    [
        ("results/saes/layer_{layer}", "results/saes"),
        ("/saes/{layer:02d}/best", "/saes"),
        ("{layer}", "."),
        ("./rows.csv", "./rows.csv"),
        ("org/model", "org/model"),
    ],
)
def test_the_part_of_a_path_before_the_layer(path, fixed):
    assert fixed_part(path) == fixed


def test_local_datasets_are_of_the_formats_that_are_read():
    assert set(TABLES) == set(READERS)
    assert not any(map(is_path, ["gpt2", "google/gemma-2-2b", "a.b/c.d"]))
