"""What one experiment takes from another is refused if it cannot be taken there."""

import copy

import pytest
from small_config import PROBE, PUBLISHED, changed, with_program, with_settings

from steering_core.config.corrsteer_resolve import load_corrsteer
from steering_core.config.references import check_guards, check_plans
from steering_core.config.resolve import plan_names, plan_sources, resolve
from steering_core.errors import ConfigError


def test_an_arm_with_features_from_another_takes_no_other_key():
    arms = {"x": {"features_from": {"experiment": "gemma2b_mmlu"}, "scale": 2.0}}
    with pytest.raises(ConfigError, match="scale would have no effect here"):
        load_corrsteer(with_settings(arms=arms))


def test_features_from_an_unknown_experiment_are_refused_with_the_nearest():
    arms = {"x": {"features_from": {"experiment": "gemma2b_mmul"}}}
    raw = changed(
        experiments={"mine": {"model": "gemma2b", "task": "mmlu", "settings": {"arms": arms}}}
    )
    with pytest.raises(ConfigError, match=r"corrsteer mine: arms\.x.*did you mean 'gemma2b_mmlu'"):
        load_corrsteer(raw)


def test_features_from_an_unknown_arm_are_refused_with_the_nearest():
    source = {"experiment": "gemma2b_mmlu", "arm": "corrster_s"}
    arms = {"x": {"features_from": source}}
    raw = changed(
        experiments={"mine": {"model": "gemma2b", "task": "mmlu", "settings": {"arms": arms}}}
    )
    with pytest.raises(ConfigError, match=r"no features .*did you mean 'corrsteer_s'"):
        load_corrsteer(raw)


def with_method(**source):
    source = {"experiment": "demo", "method": "qp_optimal"} | source
    entry = {"model": source.pop("model", "demo"), "task": "praise"}
    arms = {"x": {"intervention_from": source}}
    return changed(experiments={"mine": {**entry, "settings": {"arms": arms}}})


@pytest.mark.parametrize(
    ("method", "strength"),
    [
        ("qp_optimal", "selected"),
        ("qp_shared", {"tau": 4.0, "lam": 10.0}),
        ("convex_optimal", {"tau": 2.0, "epsilon": 0.5}),
        ("caa_repe", {"alpha": 0.5}),
        ("mean_difference_qp", "selected"),
        ("gated_mean_difference", "selected"),
        ("prompting", "selected"),
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
        ({"strength": {"tau": 5.0, "lam": 1.0}}, "not a strength of demo: give one of tau: 0.5"),
        ({"strength": {"alpha": 0.5}}, "not a strength of demo: give one of tau: 0.5, lam: 1"),
        ({"method": "no_steering"}, "intervention_from.method: no_steering is the unsteered model"),
        ({"method": "qp_optimum"}, "not among the methods of demo .did you mean 'qp_optimal'"),
        (
            {"method": "mean_difference_qp", "strength": {"tau": 1.0, "lam": 10.0}},
            "mean_difference_qp is no registered method, so only `selected`",
        ),
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
    plan = resolve(raw, "demo").settings.plans["praised"]
    assert plan_sources(raw) == {(plan.experiment, plan.arm, plan.seed)}
    assert plan_sources(changed()) == set()
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
