"""How the sections of ``corrsteer`` become experiments."""

import copy
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from steering_core.config.corrsteer_schema import DEFAULT_ARMS
from steering_core.config.resolve import load_corrsteer, resolve_corrsteer
from steering_core.corrsteer.tasks import find_task
from steering_core.errors import ConfigError

CONFIG = yaml.safe_load((Path(__file__).resolve().parents[2] / "config.yaml").read_text())


def changed(**section):
    raw = copy.deepcopy(CONFIG)
    raw["corrsteer"] |= section
    return raw


def with_settings(**settings):
    # Ablations and experiments name arms that a test leaves out.
    everywhere = CONFIG["corrsteer"]["settings"] | settings
    return changed(settings=everywhere, ablations={}, experiments={})


def test_an_entry_under_the_name_of_a_pair_sets_it_and_no_other():
    entry = {"model": "gemma2b", "task": "mmlu", "settings": {"few_shot": 3}}
    found = load_corrsteer(changed(experiments={"gemma2b_mmlu": entry}))
    assert found["gemma2b_mmlu"].settings.few_shot == 3
    assert found["llama8_mmlu"].settings.few_shot == 0


def test_the_name_of_a_pair_cannot_stand_for_another():
    entry = {"model": "gemma2b", "task": "gsm8k"}
    with pytest.raises(ConfigError, match="gemma2b_mmlu: the name is taken by the model gemma2b"):
        load_corrsteer(changed(experiments={"gemma2b_mmlu": entry}))


def test_an_ablation_has_its_own_arms_alone():
    found = load_corrsteer(CONFIG)
    assert found["gemma2b_mmlu"].settings.fine_tuning.method == "full"
    settings = found["gemma2b_mmlu_pooling"].settings
    assert settings.arms.keys() == {"max_pool", "mean_pool", "all_tokens"}
    assert settings.fine_tuning.method == "none" and settings.bridge.methods == []


def test_an_ablation_has_the_settings_of_its_pair():
    tuned = {
        "seeds": [3, 4],
        "few_shot": 2,
        "fine_tuning": {"method": "full"},
        "arms": {"caa": None},
    }
    entry = {"model": "gemma2b", "task": "mmlu", "settings": tuned}
    found = load_corrsteer(changed(experiments={"gemma2b_mmlu": entry}))
    settings = found["gemma2b_mmlu_pooling"].settings
    assert settings.seeds == [3, 4] and settings.few_shot == 2
    assert settings.arms.keys() == {"max_pool", "mean_pool", "all_tokens"}
    assert settings.fine_tuning.method == "none" and settings.bridge.methods == []
    assert found["gemma2b_mmlu_pro_pooling"].settings.seeds == [0]


def test_the_name_of_an_ablation_cannot_stand_for_an_experiment():
    entry = {"model": "gemma2b", "task": "mmlu", "settings": {"seeds": [1]}}
    with pytest.raises(ConfigError, match="gemma2b_mmlu_pooling is also the name"):
        load_corrsteer(changed(experiments={"gemma2b_mmlu_pooling": entry}))


@pytest.mark.parametrize(
    ("bridge", "arms", "advice"),
    [
        ({"methods": ["qp_optimal"], "arm": "corrster_a"}, {}, "did you mean 'corrsteer_a'"),
        ({"methods": ["qp_optimal"]}, {"corrsteer_a": None}, "set bridge.methods to"),
        ({"methods": ["qp_optimal"], "arm": "caa"}, {}, "'caa' selects no SAE features"),
    ],
)
def test_the_bridge_needs_an_arm_that_selects_features(bridge, arms, advice):
    with pytest.raises(ConfigError, match=advice):
        load_corrsteer(with_settings(bridge=bridge, arms=arms))


def test_without_programs_there_is_no_bridge_to_check():
    load_corrsteer(with_settings(bridge={"methods": []}, arms={"corrsteer_a": None}))


def test_an_arm_with_the_features_of_another_takes_them_as_they_are():
    arms = {"x": {"features_from": {"experiment": "gemma2b_mmlu"}, "scale": 2.0}}
    with pytest.raises(ConfigError, match="scale would have no effect here"):
        load_corrsteer(with_settings(arms=arms))


def test_an_unknown_experiment_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'gemma2b_mmlu'"):
        resolve_corrsteer(CONFIG, "gemma2b_mmul")


def test_an_experiment_whose_features_are_not_there_is_named():
    arms = {"x": {"features_from": {"experiment": "gemma2b_mmul"}}}
    raw = changed(
        experiments={"mine": {"model": "gemma2b", "task": "mmlu", "settings": {"arms": arms}}}
    )
    with pytest.raises(ConfigError, match=r"corrsteer mine: arms\.x.*did you mean 'gemma2b_mmlu'"):
        load_corrsteer(raw)


#: Where settings may stand, the later wins, for an experiment `e` of the model `m` on the task `t`.
LAYERS = ["settings", "models.m", "tasks.t", "experiments.e", "top level"]


def layered(at: dict[str, dict]) -> dict:
    """A configuration with one experiment and settings at some of its layers."""
    model = {**CONFIG["corrsteer"]["models"]["demo"], "paired": False}
    section = {
        "settings": at.get("settings", {}),
        "models": {"m": {**model, "settings": at.get("models.m", {})}},
        "tasks": {"t": {"task": "praise", "paired": False, "settings": at.get("tasks.t", {})}},
        "experiments": {
            "e": {"model": "m", "task": "t", "settings": at.get("experiments.e", {})},
            "other": {"model": "m", "task": "t", "settings": {"arms": {"own": {}}}},
        },
        "tables_model": "m",
    }
    return {**copy.deepcopy(CONFIG), "corrsteer": section, **at.get("top level", {})}


@given(st.lists(st.sampled_from(LAYERS), unique=True))
def test_the_later_layer_wins(given_at: list[str]):
    # A value of its own at each, of a plain setting and of an entry that has a name.
    own = {w: {"keep": 20 + LAYERS.index(w)} for w in given_at}
    for where, settings in own.items():
        settings["arms"] = {"mine": {"scale": 1.0 + LAYERS.index(where)}, where[0]: {}}
    found = load_corrsteer(layered(own))["e"].settings
    last = max(map(LAYERS.index, given_at), default=None)
    assert found.keep == (20 if last is None else 20 + last)
    assert set(found.arms) == {*DEFAULT_ARMS, *(w[0] for w in given_at)} | (
        {"mine"} if given_at else set()
    )
    if given_at:
        assert found.arms["mine"].scale == 1.0 + last


@pytest.mark.parametrize("where", LAYERS)
def test_an_arm_left_out_under_a_wrong_name_is_refused_with_the_nearest(where: str):
    named = "settings at top level" if where == "top level" else f"corrsteer.{where}"
    with pytest.raises(ConfigError, match=r"arms\.caa_x: null .*did you mean 'caa'") as caught:
        load_corrsteer(layered({where: {"arms": {"caa_x": None}}}))
    assert str(caught.value).startswith(f"in {named}")
    assert "caa" not in load_corrsteer(layered({where: {"arms": {"caa": None}}}))["e"].settings.arms


def test_an_arm_can_be_left_out_twice_but_not_before_it_is_there():
    twice = {"settings": {"arms": {"caa": None}}, "experiments.e": {"arms": {"caa": None}}}
    assert "caa" not in load_corrsteer(layered(twice))["e"].settings.arms
    early = {"models.m": {"arms": {"mine": None}}, "experiments.e": {"arms": {"mine": {}}}}
    with pytest.raises(ConfigError, match=r"models\.m\.settings: arms\.mine: null"):
        load_corrsteer(layered(early))


def test_the_top_level_may_leave_out_an_arm_of_one_experiment():
    found = load_corrsteer(layered({"top level": {"arms": {"own": None}}}))
    assert "own" not in found["other"].settings.arms
    assert found["e"].settings.arms.keys() == DEFAULT_ARMS.keys()
    with pytest.raises(ConfigError, match="did you mean 'own'"):
        load_corrsteer(layered({"top level": {"arms": {"ownn": None}}}))


@pytest.mark.parametrize("where", LAYERS)
@pytest.mark.parametrize("arms", [None, [], "caa", {"caa": 3}, {1: None}, {1: {}}])
def test_arms_of_another_form_are_one_error(where: str, arms):
    with pytest.raises(ConfigError, match="arms"):
        load_corrsteer(layered({where: {"arms": arms}}))


@pytest.mark.parametrize("kind", ["models", "tasks"])
def test_settings_that_no_experiment_uses_are_checked(kind: str):
    raw = layered({})
    raw["corrsteer"]["experiments"] = {}
    next(iter(raw["corrsteer"][kind].values()))["settings"] = {"few_shots": 1}
    with pytest.raises(ConfigError, match=rf"corrsteer\.{kind}\.\w\.settings: few_shots: unknown"):
        load_corrsteer(raw)


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"tables_model": "gema2b"}, r"corrsteer\.tables_model: .*did you mean 'gemma2b'"),
        (
            {"ablations": {"x": {"tasks": ["mmlu_pr"], "arms": {"a": {}}}}},
            r"corrsteer\.ablations\.x\.tasks: there is no task 'mmlu_pr' .*did you mean 'mmlu_pro'",
        ),
        (
            {"experiments": {"mine": {"model": "gema2b", "task": "mmlu"}}},
            r"corrsteer\.experiments\.mine\.model: .*did you mean 'gemma2b'",
        ),
    ],
)
def test_a_name_that_stands_for_nothing_is_answered_with_the_nearest(section, said):
    with pytest.raises(ConfigError, match=said):
        load_corrsteer(changed(**section))


def test_an_arm_whose_features_are_not_there_is_answered_with_the_nearest():
    source = {"experiment": "gemma2b_mmlu", "arm": "corrster_s"}
    arms = {"x": {"features_from": source}}
    raw = changed(
        experiments={"mine": {"model": "gemma2b", "task": "mmlu", "settings": {"arms": arms}}}
    )
    with pytest.raises(ConfigError, match=r"no features .*did you mean 'corrsteer_s'"):
        load_corrsteer(raw)


def test_a_task_that_is_not_registered_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'mmlu_pro'"):
        find_task("mmlu_pr")
