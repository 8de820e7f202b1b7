"""The schema is closed at every depth, and ``config.yaml`` shows all of it."""

import copy
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st
from small_config import at, small

from steering_core.config.corrsteer_schema import Arm, CorrSteerSettings, FineTuning, SparseMethods
from steering_core.config.resolve import load_config, resolve
from steering_core.config.schema import Config, DemoWorld, Settings
from steering_core.config.task import Task
from steering_core.errors import ConfigError
from steering_core.probes.fit import REGULARISATIONS

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "config.yaml").read_text(encoding="utf-8")
PUBLISHED = yaml.safe_load(TEXT)

#: Every section that holds keys of its own.
SECTIONS = {
    (): set(Config.model_fields) | set(Settings.model_fields),
    ("settings",): set(Settings.model_fields),
    ("models", "m"): {"id", "revision", "sae", "dtype", "settings"},
    ("models", "m", "sae"): {"release", "id", "l0", "path", "train"},
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


@pytest.mark.parametrize("path", SECTIONS, ids=lambda path: ".".join(path) or "top")
def test_a_misspelt_key_is_refused_with_the_nearest(path: tuple[str, ...]):
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
def test_an_unknown_key_is_refused_by_name(path: tuple[str, ...], key: str, value: object):
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


def test_an_unknown_method_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match=r"qp_optimal.*got 'qp_optiml'.*mean 'qp_optimal'"):
        resolve({**small(), "methods": ["no_steering", "qp_optiml"]}, "e")


def test_a_key_that_takes_several_types_has_one_message():
    for settings, path in ({"layer": "x"}, "layer"), ({"layers": [1, "x"]}, "layers.1"):
        raw = small()
        raw["settings"] = settings
        with pytest.raises(ConfigError, match=rf"(: |; ){path}: ") as found:
            load_config(raw)
        assert "constrained" not in str(found.value) and "literal" not in str(found.value)


@pytest.mark.parametrize(("section", "near"), [("models", "gemma"), ("experiments", "gpt2_sst2")])
def test_a_null_under_a_wrong_name_is_refused_with_the_nearest(section: str, near: str):
    raw = copy.deepcopy(PUBLISHED)
    raw[section][f"{near}x"] = None
    with pytest.raises(ConfigError, match=rf"{section}\.{near}x: .*did you mean '{near}'"):
        load_config(raw)


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
        {"chat_template": "chatml"},
        {"chat_template": 2},
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
def test_values_out_of_range_are_refused_by_name(bad: dict):
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
        ({"sae": {"release": "r", "id": "{layer}/{l0}"}}, "give both or neither"),
        ({"sae": {"release": "r", "id": "{layer}", "l0": 70}}, "give both or neither"),
        ({"sae": {"release": "r", "id": "x/{l0}", "l0": [70]}}, "write the number itself"),
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


def test_the_demo_world_is_checked():
    config, _ = load_config({**small(), "demo_world": {"d_model": 32}})
    assert config.demo_world.d_model == 32
    with pytest.raises(ConfigError, match="d_model"):
        load_config({**small(), "demo_world": {"d_model": 0}})


@pytest.mark.parametrize(
    ("old", "now"),
    [("d_sae", "sae.train.d_sae"), ("sae_samples", "sae.train.tokens")],
)
def test_a_key_that_has_moved_is_answered_with_its_place(old: str, now: str):
    with pytest.raises(ConfigError, match=rf"demo_world\.{old}: .*it is models\.demo\.{now} now"):
        load_config({**small(), "demo_world": {old: 32}})


# --------------------------------------------------------------------------- config.yaml
@pytest.mark.parametrize(
    "section", [Settings, CorrSteerSettings, SparseMethods, FineTuning, DemoWorld, Task]
)
def test_every_key_is_shown(section):
    hidden = [k for k in section.model_fields if not re.search(rf"\b{k}\b", TEXT)]
    assert hidden == []


def test_every_key_of_an_arm_is_described():
    hidden = [k for k in Arm.model_fields if k != "features_from" and f"``{k}``" not in Arm.__doc__]
    assert hidden == []


@pytest.mark.parametrize(
    ("section", "shown"),
    [
        (Settings(), PUBLISHED["settings"]),
        (CorrSteerSettings(), {k: v for k, v in PUBLISHED["corrsteer"]["settings"].items()}),
        (DemoWorld(), PUBLISHED["demo_world"]),
    ],
)
def test_shown_defaults_are_the_schemas(section, shown):
    # Read as the schema reads them: what a shown section leaves out has its own default.
    shown = {key: type(section)(**{key: value}).model_dump()[key] for key, value in shown.items()}
    defaults = section.model_dump()
    sparse_methods = shown.get("sparse_methods", {})
    assert {k: defaults["sparse_methods"][k] for k in sparse_methods} == sparse_methods
    for key in shown.keys() - {"sparse_methods"}:
        assert defaults[key] == shown[key], key


def test_probes_have_the_same_penalties_as_a_library():
    assert list(REGULARISATIONS) == Settings().probe_regularisation
