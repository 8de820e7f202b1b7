"""How the sections of ``corrsteer`` become experiments."""

import copy
from pathlib import Path

import pytest
import yaml

from steering_core.config.corrsteer_resolve import find_corrsteer, load_corrsteer
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
    with pytest.raises(ConfigError, match="scale would do nothing here"):
        load_corrsteer(with_settings(arms=arms))


def test_an_unknown_experiment_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'gemma2b_mmlu'"):
        find_corrsteer(CONFIG, "gemma2b_mmul")


def test_an_experiment_whose_features_are_not_there_is_named():
    arms = {"x": {"features_from": {"experiment": "gemma2b_mmul"}}}
    raw = changed(
        experiments={"mine": {"model": "gemma2b", "task": "mmlu", "settings": {"arms": arms}}}
    )
    with pytest.raises(ConfigError, match=r"corrsteer mine: arms\.x.*did you mean 'gemma2b_mmlu'"):
        load_corrsteer(raw)
