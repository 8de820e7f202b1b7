"""CorrSteer's experiments: pairs, ablations, arms by name, and tasks answered for others."""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_config import PUBLISHED, changed, with_settings

from steering_core.config.corrsteer_resolve import elsewhere_runs, load_corrsteer, resolve_corrsteer
from steering_core.config.corrsteer_schema import DEFAULT_ARMS
from steering_core.config.resolve import (
    resolve,
)
from steering_core.config.schema import DeclaredProgram
from steering_core.corrsteer.tasks import find_task
from steering_core.errors import ConfigError


def test_an_entry_with_the_name_of_a_pair_sets_that_pair_alone():
    entry = {"model": "gemma2b", "task": "mmlu", "settings": {"few_shot": 3}}
    found = load_corrsteer(changed(experiments={"gemma2b_mmlu": entry}))
    assert found["gemma2b_mmlu"].settings.few_shot == 3
    assert found["llama8_mmlu"].settings.few_shot == 0


def test_an_entry_with_the_name_of_a_pair_must_be_that_pair():
    entry = {"model": "gemma2b", "task": "gsm8k"}
    with pytest.raises(ConfigError, match="gemma2b_mmlu: the name is taken by the model gemma2b"):
        load_corrsteer(changed(experiments={"gemma2b_mmlu": entry}))


def test_an_ablation_has_only_its_own_arms():
    found = load_corrsteer(PUBLISHED)
    assert found["gemma2b_mmlu"].settings.fine_tuning.method == "full"
    settings = found["gemma2b_mmlu_pooling"].settings
    assert settings.arms.keys() == {"max_pool", "mean_pool", "all_tokens"}
    assert settings.fine_tuning.method == "none" and settings.sparse_methods.names == []


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
    assert settings.fine_tuning.method == "none" and settings.sparse_methods.names == []
    assert found["gemma2b_mmlu_pro_pooling"].settings.seeds == [0]


def test_an_experiment_cannot_have_the_name_of_an_ablation():
    entry = {"model": "gemma2b", "task": "mmlu", "settings": {"seeds": [1]}}
    with pytest.raises(ConfigError, match="gemma2b_mmlu_pooling is also the name"):
        load_corrsteer(changed(experiments={"gemma2b_mmlu_pooling": entry}))


DENSE = {"program": "dense", "tau": [1.0]}


@pytest.mark.parametrize(
    ("sparse_methods", "arms", "advice"),
    [
        ({"methods": ["qp_optimal"], "arm": "corrster_a"}, {}, "did you mean 'corrsteer_a'"),
        ({"methods": ["qp_optimal"]}, {"corrsteer_a": None}, "set sparse_methods.methods to"),
        ({"methods": ["qp_optimal"], "arm": "caa"}, {}, "'caa' selects no SAE features"),
        ({"methods": [], "programs": {"p": DENSE}, "arm": "caa"}, {}, "programs out to run none"),
    ],
)
def test_the_sparse_methods_need_an_arm_that_selects_features(sparse_methods, arms, advice):
    with pytest.raises(ConfigError, match=advice):
        load_corrsteer(with_settings(sparse_methods=sparse_methods, arms=arms))


@pytest.mark.parametrize(
    ("settings", "now"),
    [
        ({"bridge": {"methods": []}}, "sparse_methods"),
        ({"sparse_methods": {"weight": 2.0}}, "qp_lambda"),
    ],
)
def test_a_renamed_key_is_refused_with_its_new_name(settings, now):
    with pytest.raises(ConfigError, match=rf"unknown key \(it is called '{now}' now\)"):
        load_corrsteer(with_settings(**settings))


def test_without_methods_their_arm_is_not_checked():
    load_corrsteer(with_settings(sparse_methods={"methods": []}, arms={"corrsteer_a": None}))


def test_programs_are_declared_as_in_an_experiment_with_pareto():
    declared = {"program": "qp", "mode": "uniform", "tau": [1.0], "qp_lambda": [1.0]}
    mine = {**declared, "concept_direction": ["repe", "likelihood_gradient"], "metric": "fisher"}
    given = {"methods": ["qp_optimal"], "concept_direction": ["probe", "repe"]}
    found = load_corrsteer(with_settings(sparse_methods={**given, "programs": {"mine": mine}}))
    settings = found["gemma2b_mmlu"].settings.sparse_methods
    assert settings.names == ["qp_optimal", "mine"]
    assert settings.programs["mine"] == DeclaredProgram(**mine)


@pytest.mark.parametrize(
    ("sparse_methods", "advice"),
    [
        ({"programs": {"qp_shared": DENSE}}, "qp_shared is the name of another method: choose"),
        ({"programs": {"unsteered": DENSE}}, "unsteered is the name of another method"),
        ({"programs": {"prompting": DENSE}}, "prompting is the name of another method"),
        ({"programs": {"corrsteer_p": DENSE}}, "corrsteer_p is an arm and a program: rename one"),
        ({"programs": {"p": {**DENSE, "mode": "adaptive"}}}, "a dense program is static"),
        ({"programs": {"p": {"program": "qp", "tau": [1.0]}}}, "a program qp needs qp_lambda"),
        (
            {
                "features": 8,
                "programs": {
                    "p": {"program": "qp", "mode": "uniform", "tau": [1.0], "features": [9]}
                },
            },
            "has the 8 features of sparse_methods.features: raise that one",
        ),
        (
            {
                "programs": {
                    "p": {
                        **DENSE,
                        "guards": [{"direction": "probe", "experiment": "e", "kappa": 1.0}],
                    }
                }
            },
            r"a task has no guard probe, .* \(intervention_from\)",
        ),
        ({"concept_direction": "caa"}, "concept_direction"),
        ({"concept_direction": ["repe", "repe"]}, "has an entry twice"),
        ({"concept_direction": []}, "at least 1 item"),
    ],
)
def test_a_program_that_cannot_run_on_a_task_is_refused_before_anything_runs(
    sparse_methods, advice
):
    with pytest.raises(ConfigError, match=advice):
        load_corrsteer(with_settings(sparse_methods=sparse_methods))


def test_an_unknown_corrsteer_experiment_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'gemma2b_mmlu'"):
        resolve_corrsteer(PUBLISHED, "gemma2b_mmul")


#: Where settings may stand, the later wins, for an experiment `e` of the model `m` on the task `t`.
CORRSTEER_LAYERS = ["settings", "models.m", "tasks.t", "experiments.e", "top level"]


def layered(at: dict[str, dict]) -> dict:
    """A configuration with one experiment and settings at some of its layers."""
    model = {**PUBLISHED["models"]["demo"], "paired": False}
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
    return {**copy.deepcopy(PUBLISHED), "corrsteer": section, **at.get("top level", {})}


@given(st.lists(st.sampled_from(CORRSTEER_LAYERS), unique=True))
def test_the_later_layer_of_corrsteer_wins(given_at: list[str]):
    # A value of its own at each, of a plain setting and of an entry that has a name.
    own = {w: {"keep": 20 + CORRSTEER_LAYERS.index(w)} for w in given_at}
    for where, settings in own.items():
        settings["arms"] = {"mine": {"scale": 1.0 + CORRSTEER_LAYERS.index(where)}, where[0]: {}}
    found = load_corrsteer(layered(own))["e"].settings
    last = max(map(CORRSTEER_LAYERS.index, given_at), default=None)
    assert found.keep == (20 if last is None else 20 + last)
    assert set(found.arms) == {*DEFAULT_ARMS, *(w[0] for w in given_at)} | (
        {"mine"} if given_at else set()
    )
    if given_at:
        assert found.arms["mine"].scale == 1.0 + last


@pytest.mark.parametrize("where", CORRSTEER_LAYERS)
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


@pytest.mark.parametrize("where", CORRSTEER_LAYERS)
@pytest.mark.parametrize("arms", [None, [], "caa", {"caa": 3}, {1: None}, {1: {}}])
def test_arms_of_another_type_are_refused(where: str, arms):
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
def test_an_unknown_name_in_the_section_is_refused_with_the_nearest(section, said):
    with pytest.raises(ConfigError, match=said):
        load_corrsteer(changed(**section))


def test_an_unregistered_task_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'mmlu_pro'"):
        find_task("mmlu_pr")


def looking(*probes, **settings):
    raw = copy.deepcopy(PUBLISHED)
    raw["experiments"]["smollm2_sst2"]["settings"] |= {"elsewhere": list(probes), **settings}
    return raw


def test_a_task_that_is_answered_elsewhere_is_a_run_without_arms_on_the_same_model():
    raw = looking("text", "mmlu", elsewhere_rows=30, seed=3)
    known = elsewhere_runs(PUBLISHED)
    found = {name: run for name, run in elsewhere_runs(raw).items() if name not in known}
    (name,) = found
    assert name == "smollm2_sst2/elsewhere/mmlu"
    run, experiment = found[name], resolve(raw, "smollm2_sst2")
    assert run.model == experiment.model and run.task.task == "mmlu"
    settings = run.settings
    assert (settings.arms, settings.sparse_methods.methods, settings.seeds) == ({}, [], [3])
    assert (settings.test_rows, settings.layers) == (30, [experiment.settings.layer])
    # As the CorrSteer model of the same name: it is tuned to chat.
    assert settings.chat_template and settings.batch_rows == 50
    assert name not in load_corrsteer(raw)


def test_a_task_that_does_not_exist_is_refused_with_those_that_do():
    with pytest.raises(ConfigError, match=r"no CorrSteer task 'mmul'.*did you mean 'mmlu'.*text,"):
        elsewhere_runs(looking("mmul"))


def test_layers_of_one_run_need_not_be_trained_for_the_experiments_of_others():
    raw = {**copy.deepcopy(PUBLISHED), "layers": [1], "layer": 1}
    assert resolve(raw, "demo").settings.layer == 1
    assert load_corrsteer(raw)["demo_praise"].settings.layers == [1]
    with pytest.raises(ConfigError, match=r"layer 1 is not among sae\.train\.layers"):
        resolve(raw, "smollm2_sst2")
