"""A path that is nowhere, or something that another experiment does not have, is refused."""

import copy
from pathlib import Path

import pytest
from small_config import PROBE, PUBLISHED, changed, with_program, with_settings
from workflow_rules import CONFIG, parse

from steering_core.config.corrsteer_resolve import load_corrsteer, resolve_corrsteer
from steering_core.config.references import (
    TABLES,
    check_guards,
    check_paths,
    check_plans,
    fixed_part,
    is_path,
    named_paths,
)
from steering_core.config.resolve import plan_names, plan_sources, resolve
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
