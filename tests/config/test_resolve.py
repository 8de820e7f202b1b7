"""The schema is closed at every depth, and the layers of settings combine in one order."""

import copy
from pathlib import Path

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from steering_core.config.methods import METHODS
from steering_core.config.resolve import load_config, resolve
from steering_core.config.schema import Config, DemoWorld, Settings
from steering_core.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
EXPERIMENTS = [
    "demo",
    *(f"{m}_{t}" for m in ("gpt2", "gemma", "gemma_it") for t in ("sst2", "toxicity", "truthful")),
]


def small() -> dict:
    """A configuration with everything that can be nested."""
    return {
        "settings": {},
        "models": {
            "m": {"id": "org/m", "sae": {"release": "r", "id": "x.{layer}"}, "settings": {}},
            "idle": {"id": "org/i", "sae": {"path": "there/{layer}"}, "settings": {}},
        },
        "tasks": {
            "t": {
                "dataset": "d.csv",
                "text": "text",
                "label": "label",
                "concept": "c.yaml",
                "classifier": {"model": "org/c", "label": "POSITIVE"},
                "settings": {},
            }
        },
        "experiments": {"e": {"model": "m", "task": "t", "settings": {}}},
        "demo_world": {},
    }


def at(raw: dict, path: tuple[str, ...]) -> dict:
    for key in path:
        raw = raw[key]
    return raw


#: Every section that holds keys of its own.
SECTIONS = {
    (): set(Config.model_fields) | set(Settings.model_fields),
    ("settings",): set(Settings.model_fields),
    ("models", "m"): {"id", "revision", "sae", "dtype", "settings"},
    ("models", "m", "sae"): {"release", "id", "path"},
    ("models", "m", "settings"): set(Settings.model_fields),
    ("models", "idle", "settings"): set(Settings.model_fields),
    ("tasks", "t"): {"dataset", "revision", "subset", "split", "text", "label", "threshold"}
    | {"group", "question", "positive", "negative", "concept", "target_class", "classifier"}
    | {"settings"},
    ("tasks", "t", "classifier"): {"model", "revision", "label", "lexicon"},
    ("tasks", "t", "settings"): set(Settings.model_fields),
    ("experiments", "e"): {"model", "task", "settings"},
    ("experiments", "e", "settings"): set(Settings.model_fields),
    ("demo_world",): set(DemoWorld.model_fields),
}


def test_the_experiments_of_the_repository_resolve():
    config, overrides = load_config(PUBLISHED)
    assert sorted(config.experiments) == sorted(EXPERIMENTS)
    assert overrides == {}
    for name in EXPERIMENTS:
        found = resolve(PUBLISHED, name)
        assert found.settings.methods == list(METHODS)
        assert found.settings.layer in (7, 15, "auto")
        assert found.task.target_class == 1


@pytest.mark.parametrize(
    ("name", "layer", "sae", "dataset"),
    [
        ("gpt2_sst2", 7, "gpt2-small-res-jb", "stanfordnlp/sst2"),
        ("gemma_toxicity", 15, "gemma-scope-2b-pt-res-canonical", "google/civil_comments"),
        ("gemma_it_truthful", 15, "gemma-scope-2b-pt-res-canonical", "truthfulqa/truthful_qa"),
    ],
)
def test_published_defaults(name: str, layer: int, sae: str, dataset: str):
    found = resolve(PUBLISHED, name)
    got = found.settings
    assert (got.layer, got.rows_per_class, got.n_prompts, got.new_tokens) == (layer, 500, 50, 100)
    assert (got.temperature, got.top_p, got.positions) == (1.0, 0.9, "last")
    assert (found.model.sae.release, found.task.dataset) == (sae, dataset)
    if "toxicity" in name:
        assert found.task.threshold == 0.5
    if "truthful" in name:
        assert found.task.classifier is None


def test_concept_files_of_the_repository_exist():
    for task in load_config(PUBLISHED)[0].tasks.values():
        assert task.concept.startswith("results/") or (ROOT / task.concept).is_file()


LAYERS = [
    ("settings",),
    ("models", "m", "settings"),
    ("tasks", "t", "settings"),
    ("experiments", "e", "settings"),
    (),
]


@given(st.lists(st.sampled_from(range(len(LAYERS))), unique=True))
def test_the_later_layer_wins(given_at: list[int]):
    raw = small()
    for place in given_at:
        at(raw, LAYERS[place])["seed"] = place + 1
    want = max(given_at) + 1 if given_at else Settings().seed
    assert resolve(raw, "e").settings.seed == want


def test_a_layer_of_another_section_does_not_count():
    raw = small()
    raw["models"]["idle"]["settings"] = {"seed": 9}
    assert resolve(raw, "e").settings.seed == 0


@pytest.mark.parametrize("path", SECTIONS, ids=lambda path: ".".join(path) or "top")
def test_a_misspelt_key_is_named_with_the_right_one(path: tuple[str, ...]):
    for key in sorted(SECTIONS[path]):
        raw = small()
        wrong = key[:-1] + "qq" if len(key) > 3 else key + "q"
        at(raw, path)[wrong] = 1
        with pytest.raises(ConfigError) as caught:
            resolve(raw, "e")
        message = str(caught.value)
        assert f"{wrong}: unknown key" in message
        # A short key may be closer to another one, but there is always a hint at a known key.
        hinted = message.split("did you mean ")[1].split("?")[0].strip("'")
        assert hinted in SECTIONS[path]
        if len(key) > 5 and not key.startswith("layer"):
            assert hinted == key


@given(
    path=st.sampled_from(sorted(SECTIONS)),
    key=st.text(st.characters(codec="utf-8"), max_size=20),
    value=st.one_of(st.integers(), st.text(max_size=3), st.none(), st.just({})),
)
def test_any_unknown_key_is_an_error_that_names_it(path: tuple[str, ...], key: str, value: object):
    assume(key not in SECTIONS[path])
    raw = small()
    at(raw, path)[key] = value
    with pytest.raises(ConfigError) as caught:
        resolve(raw, "e")
    assert f"{key}: unknown key" in str(caught.value)


def test_all_unknown_keys_are_reported_at_once():
    raw = small()
    raw["models"]["m"]["idd"] = raw["tasks"]["t"]["txet"] = 1
    with pytest.raises(ConfigError, match=r"models\.m\.idd.*tasks\.t\.txet"):
        load_config(raw)


def test_the_layer_that_is_wrong_is_named():
    raw = small()
    raw["tasks"]["t"]["settings"] = {"topk": 0}
    with pytest.raises(ConfigError, match=r"tasks\.t\.settings: topk.*got 0"):
        load_config(raw)
    with pytest.raises(ConfigError, match="top level: topk"):
        load_config({**small(), "topk": -1})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "mm"}, r"experiments\.e\.model.*no model 'mm'.*'m'"),
        ({"task": "tt"}, r"experiments\.e\.task.*no task 'tt'.*'t'"),
    ],
)
def test_unknown_model_and_task(change: dict, message: str):
    raw = small()
    raw["experiments"]["e"] |= change
    with pytest.raises(ConfigError, match=message):
        load_config(raw)


def test_unknown_experiment_names_the_known_ones():
    with pytest.raises(ConfigError, match=r"'gpt2_sst'.*did you mean 'gpt2_sst2'.*gemma_it_sst2"):
        resolve(PUBLISHED, "gpt2_sst")


def test_unknown_method_names_it_and_the_known_ones():
    with pytest.raises(ConfigError, match=r"qp_optimal.*got 'qp_optiml'.*mean 'qp_optimal'"):
        resolve({**small(), "methods": ["no_steering", "qp_optiml"]}, "e")


@pytest.mark.parametrize(
    "bad",
    [
        {"rows_per_class": 0},
        {"rows_per_class": 1.5},
        {"rows_per_class": "many"},
        {"rows_per_class": None},
        {"rows_per_class": True},
        {"seed": -1},
        {"seed": 2**31},
        {"seed": True},
        {"train_fraction": 0},
        {"train_fraction": 1},
        {"train_fraction": float("nan")},
        {"train_fraction": 0.7},  # nothing left for the evaluation probe
        {"train_fraction": 0.5, "validation_fraction": 0.25, "test_fraction": 0.25},
        {"max_tokens": 1},
        {"long_texts": "cut"},
        {"layer": -1},
        {"layer": "best"},
        {"layer": True},
        {"layers": []},
        {"layers": [1, -2]},
        {"layers": [True]},
        {"methods": []},
        {"methods": "qp_optimal"},
        {"methods": ["no_steering", "no_steering"]},
        {"methods": ["qp_optimal"]},  # nothing to compare with
        {"strengths": 0.5},
        {"strengths": []},
        {"strengths": [0.0]},
        {"strengths": [-1.0]},
        {"strengths": [1, 1.0]},
        {"qp_lambda": [float("inf")]},
        {"qp_tau": [float("nan")]},
        {"socp_epsilon": [0]},
        {"variants": ["signed"]},  # nothing to compare with
        {"variants": ["path", "boxed"]},
        {"variants": ["path", "box", "box"]},
        {"variant_epsilon": []},
        {"variant_lambda": [0.0]},
        {"variant_tau": 0},
        {"cone_solver": "osqp"},
        {"prefilter_features": 1},
        {"box_factor": -1.0},
        {"subspace_directions": 51},  # more than the components they are chosen from
        {"temperature": 0},
        {"temperature": float("inf")},
        {"top_p": 0},
        {"top_p": 1.1},
        {"positions": "first"},
        {"device": "tpu"},
        {"probe_folds": 1},
        {"bootstrap_resamples": 0},
    ],
    ids=str,
)
def test_values_out_of_range_are_refused_and_named(bad: dict):
    with pytest.raises(ConfigError) as caught:
        resolve({**small(), **bad}, "e")
    assert any(key in str(caught.value) for key in bad)


def test_values_at_the_edge_are_accepted():
    edge = {
        "seed": 2**31 - 1,
        "top_p": 1,
        "max_tokens": 2,
        "layer": 0,
        "layers": [3],
        "n_prompts": 1,
        "n_validation_prompts": 0,
    }
    settings = resolve({**small(), **edge}, "e").settings
    assert {key: getattr(settings, key) for key in edge} == edge


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"sae": {"release": "r"}}, "release and id, or path"),
        (
            {"sae": {"path": "p/{layer}", "release": "r", "id": "{layer}"}},
            "release and id, or path",
        ),
        ({"sae": {"path": "p/{layer}", "id": "{layer}"}}, "release and id, or path"),
        ({"sae": {}}, "release and id, or path"),
        ({"sae": {"path": "p/{{layer}}"}}, "no other braces"),
        ({"sae": {"path": "p/{layer}/{width}"}}, "no other braces"),
        ({"sae": {"path": "p/{layer}/{"}}, "no other braces"),
        ({"dtype": "float8"}, "dtype"),
        ({"id": 3}, "valid string"),
    ],
)
def test_a_model_must_have_one_source(section: dict, message: str):
    raw = small()
    raw["models"]["m"] |= section
    with pytest.raises(ConfigError, match=message):
        load_config(raw)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"label": None}, "give either text and label"),
        ({"question": "q"}, "give either text and label"),
        ({"question": "q", "positive": "p", "negative": "n"}, "give either text and label"),
        (
            {"text": None, "label": None, "question": "q", "positive": "p", "negative": "n"}
            | {"threshold": 0.5},
            "belong to text and label",
        ),
        ({"threshold": float("nan")}, "finite"),
        ({"target_class": 2}, "target_class"),
        ({"target_class": True}, "target_class"),
        ({"classifier": {"model": "m"}}, "model and label"),
        ({"classifier": {"label": "l"}}, "model and label"),
        ({"classifier": {}}, "model and label"),
        ({"classifier": {"model": "m", "label": "l", "lexicon": "x"}}, "model and label"),
        ({"classifier": {"lexicon": "x", "label": "l"}}, "model and label"),
    ],
)
def test_a_task_must_have_one_form(section: dict, message: str):
    raw = small()
    raw["tasks"]["t"] |= section
    with pytest.raises(ConfigError, match=message):
        load_config(raw)


@pytest.mark.parametrize(
    "name", ["../up", "a/b", "/root", "", ".", "..", "a b", "a\n", "1a", "{x}"]
)
@pytest.mark.parametrize("section", ["experiments", "models", "tasks"])
def test_names_cannot_lead_out_of_the_results(section: str, name: str):
    # Every output is results/{experiment}/ and a fixed name or a method's: nothing else is free.
    raw = small()
    raw[section][name] = next(iter(raw[section].values()))
    with pytest.raises(ConfigError, match="pattern"):
        load_config(raw)


@pytest.mark.parametrize("value", [None, 3, "text", [1]])
@pytest.mark.parametrize("section", ["settings", "models", "tasks", "experiments", "demo_world"])
def test_a_section_of_another_type_is_refused(section: str, value: object):
    with pytest.raises(ConfigError, match=section):
        load_config({**small(), section: value})


def test_a_missing_section_is_refused():
    raw = small()
    del raw["models"]
    with pytest.raises(ConfigError, match="models"):
        load_config(raw)


def test_the_input_is_left_alone():
    raw = {**small(), "seed": 4}
    before = copy.deepcopy(raw)
    first, second = resolve(raw, "e"), resolve(raw, "e")
    assert raw == before
    assert first == second
    first.settings.methods.append("tampered")
    assert resolve(raw, "e").settings.methods == list(METHODS)


def test_demo_world():
    config, _ = load_config({**small(), "demo_world": {"d_sae": 32}})
    assert config.demo_world.d_sae == 32
    with pytest.raises(ConfigError, match="d_sae"):
        load_config({**small(), "demo_world": {"d_sae": 0}})


@pytest.mark.parametrize("settings", [{"layer": 3}, {"layers": [3]}, {"layer": 3, "layers": [3]}])
def test_an_sae_of_one_layer(settings):
    raw = small()
    for model in raw["models"].values():
        model["sae"], model["settings"] = {"path": "saes/mine"}, settings
    for name in raw["experiments"]:
        assert not resolve(raw, name).model.sae.by_layer


@pytest.mark.parametrize(
    "settings", [{"layer": "auto"}, {"layers": [3, 4]}, {"layer": 2, "layers": [2, 3]}]
)
def test_an_sae_of_one_layer_needs_to_be_told_which(settings):
    raw = small()
    for model in raw["models"].values():
        model["sae"], model["settings"] = {"path": "saes/mine"}, settings
    with pytest.raises(ConfigError, match=r"models\..*\.sae: 'saes/mine' has no {layer}.*`layer`"):
        load_config(raw)


@pytest.mark.parametrize("given", [{"layer": "auto"}, {"layers": [2, 3]}])
def test_an_sae_of_one_layer_keeps_no_other_experiment_from_another(given):
    raw = small()
    one, other = "one_layer", next(iter(raw["experiments"]))
    model = {**raw["models"][raw["experiments"][other]["model"]], "settings": {"layer": 3}}
    raw["models"][one] = {**model, "sae": {"path": "saes/mine"}}
    raw["experiments"][one] = {**raw["experiments"][other], "model": one}
    raw |= given
    assert resolve(raw, other).settings.layers == given.get("layers", "all")
    with pytest.raises(ConfigError, match=f"{one}.sae.*do not give another with --config"):
        resolve(raw, one)


def test_a_key_of_two_kinds_has_one_message():
    for settings, path in ({"layer": "x"}, "layer"), ({"layers": [1, "x"]}, "layers.1"):
        raw = small()
        raw["settings"] = settings
        with pytest.raises(ConfigError, match=rf"(: |; ){path}: ") as found:
            load_config(raw)
        assert "constrained" not in str(found.value) and "literal" not in str(found.value)


@pytest.mark.parametrize(("section", "near"), [("models", "gemma"), ("experiments", "gpt2_sst2")])
def test_a_null_under_a_wrong_name_is_answered_with_the_nearest(section: str, near: str):
    raw = copy.deepcopy(PUBLISHED)
    raw[section][f"{near}x"] = None
    with pytest.raises(ConfigError, match=rf"{section}\.{near}x: .*did you mean '{near}'"):
        load_config(raw)
