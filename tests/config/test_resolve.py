"""The layers of settings of both kinds of experiments combine in one order."""

import copy
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from small_config import at, small

from steering_core.config.corrsteer_schema import DEFAULT_ARMS
from steering_core.config.methods import METHODS
from steering_core.config.resolve import (
    check_guards,
    check_plans,
    elsewhere_runs,
    gated_names,
    load_config,
    load_corrsteer,
    plan_names,
    program_names,
    resolve,
    resolve_corrsteer,
)
from steering_core.config.schema import Settings
from steering_core.corrsteer.tasks import find_task
from steering_core.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]


PUBLISHED = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))


EXPERIMENTS = [
    "demo",
    *(
        f"{model}_{task}"
        for model in ("gpt2", "gemma", "gemma_it", "smollm2")
        for task in ("sst2", "toxicity", "truthful")
    ),
]


def test_the_experiments_of_the_repository_resolve():
    config, overrides = load_config(PUBLISHED)
    assert sorted(config.experiments) == sorted(
        [*EXPERIMENTS, "smollm2_elsewhere", "smollm2_price", "smollm2_sst2_metrics"]
    )
    assert overrides == {}
    for name in EXPERIMENTS:
        found = resolve(PUBLISHED, name)
        assert found.settings.methods == list(METHODS)
        assert found.settings.layer in (7, 14, 15, "auto")
        assert found.task.target_class == 1


def test_an_experiment_compares_three_directions_in_three_metrics():
    programs = resolve(PUBLISHED, "smollm2_sst2_metrics").settings.programs.values()
    compared = {(program.concept_direction, program.metric) for program in programs}
    assert len(compared) == len(programs) == 9
    assert len({direction for direction, _ in compared}) == 3


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


def test_a_wrong_value_is_reported_with_its_layer():
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
def test_an_unknown_model_or_task_is_refused_with_the_nearest(change: dict, message: str):
    raw = small()
    raw["experiments"]["e"] |= change
    with pytest.raises(ConfigError, match=message):
        load_config(raw)


def test_an_unknown_experiment_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"'gpt2_sst'.*did you mean 'gpt2_sst2'.*gemma_it_sst2"):
        resolve(PUBLISHED, "gpt2_sst")


def test_the_input_is_left_alone():
    raw = {**small(), "seed": 4}
    before = copy.deepcopy(raw)
    first, second = resolve(raw, "e"), resolve(raw, "e")
    assert raw == before
    assert first == second
    first.settings.methods.append("tampered")
    assert resolve(raw, "e").settings.methods == list(METHODS)


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
def test_an_sae_of_one_layer_needs_the_number_of_the_layer(settings):
    raw = small()
    for model in raw["models"].values():
        model["sae"], model["settings"] = {"path": "saes/mine"}, settings
    with pytest.raises(ConfigError, match=r"models\..*\.sae: 'saes/mine' has no {layer}.*`layer`"):
        load_config(raw)


@pytest.mark.parametrize("given", [{"layer": "auto"}, {"layers": [2, 3]}])
def test_an_sae_of_one_layer_does_not_restrict_other_experiments(given):
    raw = small()
    one, other = "one_layer", next(iter(raw["experiments"]))
    model = {**raw["models"][raw["experiments"][other]["model"]], "settings": {"layer": 3}}
    raw["models"][one] = {**model, "sae": {"path": "saes/mine"}}
    raw["experiments"][one] = {**raw["experiments"][other], "model": one}
    raw |= given
    assert resolve(raw, other).settings.layers == given.get("layers", "all")
    with pytest.raises(ConfigError, match=f"{one}.sae.*do not give another with --config"):
        resolve(raw, one)


# -------------------------------------------------------------- experiments of CorrSteer
def changed(**section):
    raw = copy.deepcopy(PUBLISHED)
    raw["corrsteer"] |= section
    return raw


def with_settings(**settings):
    # Ablations and experiments name arms that a test leaves out.
    everywhere = PUBLISHED["corrsteer"]["settings"] | settings
    return changed(settings=everywhere, ablations={}, experiments={})


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
    assert settings.fine_tuning.method == "none" and settings.sparse_methods.methods == []


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
    assert settings.fine_tuning.method == "none" and settings.sparse_methods.methods == []
    assert found["gemma2b_mmlu_pro_pooling"].settings.seeds == [0]


def test_an_experiment_cannot_have_the_name_of_an_ablation():
    entry = {"model": "gemma2b", "task": "mmlu", "settings": {"seeds": [1]}}
    with pytest.raises(ConfigError, match="gemma2b_mmlu_pooling is also the name"):
        load_corrsteer(changed(experiments={"gemma2b_mmlu_pooling": entry}))


@pytest.mark.parametrize(
    ("sparse_methods", "arms", "advice"),
    [
        ({"methods": ["qp_optimal"], "arm": "corrster_a"}, {}, "did you mean 'corrsteer_a'"),
        ({"methods": ["qp_optimal"]}, {"corrsteer_a": None}, "set sparse_methods.methods to"),
        ({"methods": ["qp_optimal"], "arm": "caa"}, {}, "'caa' selects no SAE features"),
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


def test_an_arm_with_features_from_another_takes_no_other_key():
    arms = {"x": {"features_from": {"experiment": "gemma2b_mmlu"}, "scale": 2.0}}
    with pytest.raises(ConfigError, match="scale would have no effect here"):
        load_corrsteer(with_settings(arms=arms))


def test_an_unknown_corrsteer_experiment_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'gemma2b_mmlu'"):
        resolve_corrsteer(PUBLISHED, "gemma2b_mmul")


def test_features_from_an_unknown_experiment_are_refused_with_the_nearest():
    arms = {"x": {"features_from": {"experiment": "gemma2b_mmul"}}}
    raw = changed(
        experiments={"mine": {"model": "gemma2b", "task": "mmlu", "settings": {"arms": arms}}}
    )
    with pytest.raises(ConfigError, match=r"corrsteer mine: arms\.x.*did you mean 'gemma2b_mmlu'"):
        load_corrsteer(raw)


#: Where settings may stand, the later wins, for an experiment `e` of the model `m` on the task `t`.
CORRSTEER_LAYERS = ["settings", "models.m", "tasks.t", "experiments.e", "top level"]


def layered(at: dict[str, dict]) -> dict:
    """A configuration with one experiment and settings at some of its layers."""
    model = {**PUBLISHED["corrsteer"]["models"]["demo"], "paired": False}
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


def test_features_from_an_unknown_arm_are_refused_with_the_nearest():
    source = {"experiment": "gemma2b_mmlu", "arm": "corrster_s"}
    arms = {"x": {"features_from": source}}
    raw = changed(
        experiments={"mine": {"model": "gemma2b", "task": "mmlu", "settings": {"arms": arms}}}
    )
    with pytest.raises(ConfigError, match=r"no features .*did you mean 'corrsteer_s'"):
        load_corrsteer(raw)


def test_an_unregistered_task_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'mmlu_pro'"):
        find_task("mmlu_pr")


def with_method(**source):
    source = {"experiment": "demo", "method": "qp_optimal"} | source
    entry = {"model": source.pop("model", "demo"), "task": "praise"}
    arms = {"x": {"intervention_from": source}}
    return changed(experiments={"mine": {**entry, "settings": {"arms": arms}}})


@pytest.mark.parametrize(
    ("method", "strength"),
    [
        ("qp_optimal", "selected"),
        ("qp_shared", {"tau": 4.0, "lam": 1.0}),
        ("convex_optimal", {"tau": 2.0, "epsilon": 0.5}),
        ("caa_repe", {"alpha": 0.5}),
    ],
)
def test_an_arm_may_be_a_method_of_another_experiment(method, strength):
    found = load_corrsteer(with_method(method=method, strength=strength))
    arm = found["mine"].settings.arms["x"]
    assert arm.intervention_from.method == method and not arm.selects


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ({"experiment": "dmeo"}, "there is no experiment 'dmeo'.*did you mean 'demo'"),
        ({"model": "gemma2b"}, "steers the model results/demo/language_model .* fitted on alone"),
        ({"strength": {"tau": 5.0, "lam": 1.0}}, "none of demo: give one of tau: 0.5, lam: 1"),
        ({"strength": {"alpha": 0.5}}, "none of demo: give one of tau: 0.5, lam: 1"),
        ({"method": "no_steering"}, "intervention_from.method"),
    ],
)
def test_a_method_that_cannot_be_evaluated_is_refused_with_the_reason(source, reason):
    with pytest.raises(ConfigError, match=reason):
        load_corrsteer(with_method(**source))


def test_a_method_without_a_selection_needs_a_named_strength():
    raw = with_method()
    raw["experiments"]["demo"]["settings"]["n_validation_prompts"] = 0
    with pytest.raises(ConfigError, match=r"demo selects no strength.*name a strength"):
        load_corrsteer(raw)
    raw["experiments"]["demo"]["settings"]["methods"] = ["no_steering", "caa_repe"]
    with pytest.raises(ConfigError, match="qp_optimal is not among the methods of demo"):
        load_corrsteer(raw)


def test_one_name_is_no_arm_of_both_kinds():
    raw = with_method()
    raw["corrsteer"]["experiments"]["other"] = {
        "model": "demo",
        "task": "praise",
        "settings": {"arms": {"x": {"strategy": "single"}}},
    }
    with pytest.raises(ConfigError, match=r"other: arms\.x: mine has an arm of that name"):
        load_corrsteer(raw)


def test_a_method_takes_no_setting_of_selection():
    raw = with_method()
    raw["corrsteer"]["experiments"]["mine"]["settings"]["arms"]["x"]["scale"] = 2.0
    with pytest.raises(ConfigError, match="scale would have no effect here"):
        load_corrsteer(raw)


def with_plan(**plan):
    raw = copy.deepcopy(PUBLISHED)
    plan = {"experiment": "demo_praise", "arm": "corrsteer_a"} | plan
    raw["experiments"]["demo"]["settings"]["plans"] = {"praised": plan}
    return raw


def test_a_plan_is_a_method_with_scales():
    raw = with_plan(scales=[1.0, 2.0])
    assert plan_names(raw) == ["praised"]
    check_plans(resolve(raw, "demo"), load_corrsteer(raw))
    assert resolve(raw, "demo").settings.plans["praised"].scales == [1.0, 2.0]
    assert plan_names(PUBLISHED) == []


@pytest.mark.parametrize(
    ("plan", "reason"),
    [
        ({"experiment": "demo_prais"}, "no CorrSteer experiment 'demo_prais'.*'demo_praise'"),
        ({"arm": "corrster_a"}, "no plan of an arm 'corrster_a'.*'corrsteer_a'"),
        ({"seed": 7}, "has the seeds .0., not 7"),
        ({"experiment": "gemma2b_mmlu"}, "steers the model google/gemma-2-2b-it .* made for alone"),
    ],
)
def test_a_plan_that_cannot_be_evaluated_is_refused_with_the_reason(plan, reason):
    with pytest.raises(ConfigError, match=rf"experiments.demo: plans.praised: .*{reason}"):
        load_corrsteer(with_plan(**plan))


def test_a_plan_has_a_name_of_its_own():
    raw = with_plan()
    plans = raw["experiments"]["demo"]["settings"]["plans"]
    plans["qp_optimal"] = plans.pop("praised")
    with pytest.raises(ConfigError, match="qp_optimal is the name of a method"):
        resolve(raw, "demo")


def with_program(name="mine", **program):
    raw = copy.deepcopy(PUBLISHED)
    program = {"program": "qp", "tau": [1.0], "qp_lambda": [1.0]} | program
    settings = raw["experiments"]["demo"]["settings"]
    settings["programs"] = settings.get("programs", {}) | {name: program}
    return raw


def test_a_declared_program_is_the_published_one_by_default():
    raw = with_program()
    assert "mine" in program_names(raw) and "mine" not in plan_names(raw)
    found = resolve(raw, "demo").settings.programs["mine"]
    assert (found.mode, found.concept_direction, found.metric) == ("static", "probe", "identity")
    assert found.feature_cost == "unit" and not found.needs_fisher


COMPONENTS = {"direction": "principal_components", "count": 2, "kappa": 0.5}
PROBE = {"direction": "probe", "experiment": "gpt2_sst2", "kappa": 0.5}


def test_a_program_may_be_guarded():
    found = resolve(with_program(guards=[COMPONENTS, PROBE]), "demo").settings.programs["mine"]
    assert [guard.kappa for guard in found.guards] == [0.5, 0.5]
    assert found.guarding_experiments == ["gpt2_sst2"]
    assert resolve(with_program(), "demo").settings.programs["mine"].guards == []


@pytest.mark.parametrize(
    ("guards", "reason"),
    [
        ([{**COMPONENTS, "count": None}], "a guard principal_components needs count"),
        ([{**COMPONENTS, "experiment": "demo"}], "principal_components takes no experiment"),
        ([{**PROBE, "count": 2}], "a guard probe takes no count"),
        ([{**PROBE, "kappa": -1}], "greater than or equal to 0"),
        ([COMPONENTS, COMPONENTS], "name principal_components twice"),
        ([PROBE, PROBE], "name the probe of an experiment twice"),
    ],
)
def test_a_guard_without_its_source_is_refused(guards, reason):
    with pytest.raises(ConfigError, match=reason):
        resolve(with_program(guards=guards), "demo")


def test_guards_are_for_sparse_programs_with_one_direction():
    with pytest.raises(ConfigError, match="guards are for a qp or socp with one"):
        resolve(with_program(program="dense", qp_lambda=None, guards=[COMPONENTS]), "demo")
    both = {"concept_direction": ["probe", "repe"], "guards": [COMPONENTS]}
    with pytest.raises(ConfigError, match="guards are for a qp or socp with one"):
        resolve(with_program(**both), "demo")


@pytest.mark.parametrize(
    ("guard", "settings", "reason"),
    [
        ({"experiment": "gpt2_sst"}, {}, "there is no experiment 'gpt2_sst'.*'gpt2_sst2'"),
        ({}, {}, "gpt2_sst2 runs another model"),
        ({"experiment": "twin"}, {"layer": 2}, "at layer 2, and demo steers layer 1"),
    ],
)
def test_the_probe_of_a_guard_reads_the_same_residuals(guard, settings, reason):
    raw = with_program(guards=[PROBE | guard])
    raw["experiments"]["demo"]["settings"]["layer"] = 1
    raw["experiments"]["twin"] = {"model": "demo", "task": "grammar", "settings": settings}
    with pytest.raises(ConfigError, match=rf"demo: programs\.mine\.guards: .*{reason}"):
        check_guards(raw, resolve(raw, "demo"))
    raw = with_program(guards=[PROBE | {"experiment": "twin"}])
    raw["experiments"]["twin"] = {"model": "demo", "task": "grammar"}
    check_guards(raw, resolve(raw, "demo"))


@pytest.mark.parametrize("key", ["metric", "feature_cost"])
def test_a_program_in_the_metric_of_kl_needs_the_fisher_information(key):
    assert resolve(with_program(**{key: "fisher"}), "demo").settings.programs["mine"].needs_fisher


@pytest.mark.parametrize("shrinkage", [0, 1.5, "most"])
def test_a_shrinkage_that_is_no_share_is_refused(shrinkage):
    raw = with_program(metric="fisher")
    raw["experiments"]["demo"]["settings"]["fisher"] = {"shrinkage": shrinkage}
    with pytest.raises(ConfigError, match=r"fisher\.shrinkage"):
        resolve(raw, "demo")


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ({"qp_lambda": None}, "a program qp needs qp_lambda"),
        ({"program": "socp"}, "a program socp takes no qp_lambda"),
        ({"program": "dense", "qp_lambda": None, "mode": "adaptive"}, "static, shared or uniform"),
        (
            {"program": "dense", "qp_lambda": None, "feature_cost": "fisher"},
            "takes no feature_cost",
        ),
        ({"concept_direction": []}, "names no direction"),
        ({"concept_direction": ["probe", "probe"]}, "has an entry twice"),
        ({"concept_direction": "mean_diff"}, "did you mean 'mean_difference'"),
        ({"name": "qp_optimal"}, "qp_optimal is the name of a method"),
        ({"features": [1, 2]}, "features is for a qp with mode: uniform and one"),
        (
            {"mode": "uniform", "qp_lambda": None, "features": [1]}
            | {"concept_direction": ["probe", "repe"]},
            "features is for a qp with mode: uniform and one direction",
        ),
        ({"mode": "uniform", "features": [1, 2]}, "a program qp takes no qp_lambda"),
        (
            {"mode": "uniform", "qp_lambda": None, "features": [1], "concept_direction": "repe"},
            "programs.mine: features needs the dense end of its curve",
        ),
        ({"mode": "uniform", "qp_lambda": None, "features": [2, 2]}, "has an entry twice"),
    ],
)
def test_a_program_that_cannot_be_solved_is_refused_with_the_reason(program, reason):
    with pytest.raises(ConfigError, match=reason):
        resolve(with_program(**program), "demo")


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


def with_gate(name="mine", **gated):
    raw = copy.deepcopy(PUBLISHED)
    gated = {"method": "caa_mean_diff", "gate": {"probe_below": 0.0}} | gated
    raw["experiments"]["demo"]["settings"]["gated"] = {name: gated}
    return raw


def test_a_method_may_stand_behind_a_gate():
    raw = with_gate(gate={"feature": 3, "above": 0.5})
    assert "mine" in gated_names(raw)
    found = resolve(raw, "demo").settings.gated["mine"]
    assert (found.method, found.gate.feature, found.gate.probe_below) == ("caa_mean_diff", 3, None)


@pytest.mark.parametrize(
    ("gated", "reason"),
    [
        ({"gate": {}}, "a gate needs probe_below, or feature and above"),
        (
            {"gate": {"probe_below": 0.0, "feature": 1, "above": 0.5}},
            "a gate needs probe_below, or",
        ),
        ({"gate": {"feature": 1}}, "a gate on a feature needs feature and above"),
        ({"gate": {"probe_below": 0.0, "above": 0.5}}, "one on the probe neither"),
        ({"method": "no_steering"}, "no_steering is no method that steers"),
        ({"method": "nothing"}, "nothing is no method that steers"),
        ({"name": "caa_repe"}, "caa_repe is the name of a method"),
        ({"name": "mean_difference_qp"}, "is a gated method and a plan or a program"),
    ],
)
def test_a_gate_without_a_condition_or_a_method_is_refused(gated, reason):
    with pytest.raises(ConfigError, match=reason):
        resolve(with_gate(**gated), "demo")


def test_counts_of_features_need_a_dense_program_with_their_margin():
    counted = {"mode": "uniform", "qp_lambda": None, "concept_direction": "mean_difference"}
    found = resolve(with_program(features=[1, 4], **counted), "demo").settings
    assert found.programs["mine"].features == [1, 4]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"effect_layers": [1]}, "two layers or more"),
        ({"effect_layers": [1, 1]}, "has an entry twice"),
        ({"effect_layers": [0, 3], "layers": [0, 1]}, "layers does not have 3"),
        ({"effect_layers": [0, 1], "n_validation_prompts": 0}, "needs n_validation_prompts"),
    ],
)
def test_layers_that_cannot_be_tried_are_refused_with_the_reason(changed, reason):
    raw = copy.deepcopy(PUBLISHED)
    raw["experiments"]["demo"]["settings"] |= {"layer": "effect", **changed}
    with pytest.raises(ConfigError, match=reason):
        resolve(raw, "demo")
    raw["experiments"]["demo"]["settings"] |= {"layers": "all", "n_validation_prompts": 5}
    raw["experiments"]["demo"]["settings"]["effect_layers"] = [0, 1]
    assert resolve(raw, "demo").settings.layer == "effect"
