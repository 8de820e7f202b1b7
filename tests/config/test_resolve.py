"""The layers of settings combine in one order, into the experiments of pareto.csv."""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_config import COMPONENTS, PROBE, PUBLISHED, ROOT, at, small, with_program

from steering_core.config.methods import DEFAULT_METHODS, METHODS
from steering_core.config.references import named_paths
from steering_core.config.resolve import (
    gated_names,
    guarding_concept_names,
    load_config,
    plan_names,
    program_names,
    resolve,
)
from steering_core.config.schema import Settings
from steering_core.errors import ConfigError

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
        [
            *EXPERIMENTS,
            "demo_elsewhere",
            "smollm2_elsewhere",
            "smollm2_price",
            "smollm2_price_narrow",
            "smollm2_sst2_metrics",
        ]
    )
    assert overrides == {}
    for name in EXPERIMENTS:
        found = resolve(PUBLISHED, name)
        assert found.settings.methods == list(DEFAULT_METHODS)
        assert found.settings.layer in (7, 14, 15, "auto")
        assert found.task.target_class == 1


def test_an_experiment_has_every_method_of_the_demo_elsewhere_and_the_price_of_guards():
    demo, found = (resolve(PUBLISHED, name).settings for name in ("demo", "demo_elsewhere"))
    assert set(found.methods) == set(METHODS) and set(found.gated) == set(demo.gated)
    assert set(found.programs) == {*demo.programs, "loosely_guarded_qp"}
    assert found.elsewhere == demo.elsewhere and found.strengths == demo.strengths
    plain, loose, tight = (
        found.programs[name] for name in ("mean_difference_qp", "loosely_guarded_qp", "guarded_qp")
    )
    # Guards alone differ, at one strength, so that effect and cost elsewhere are of one pair.
    assert len(plain.tau) == 1 and not plain.guards
    for program in loose, tight:
        assert program.model_copy(update={"guards": []}) == plain
    assert loose.guards[0].kappa > tight.guards[0].kappa > 0


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
    assert resolve(raw, "e").settings.methods == list(DEFAULT_METHODS)


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


def test_a_declared_program_is_the_published_one_by_default():
    raw = with_program()
    assert "mine" in program_names(raw) and "mine" not in plan_names(raw)
    found = resolve(raw, "demo").settings.programs["mine"]
    assert (found.mode, found.concept_direction, found.metric) == ("static", "probe", "identity")
    assert found.feature_cost == "unit" and not found.needs_fisher


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
        ([{**PROBE, "concept": "a.yaml"}], "a guard probe takes no concept"),
        ([{"direction": "contrastive", "kappa": 1}], "a guard contrastive needs concept"),
        ([{**PROBE, "kappa": -1}], "greater than or equal to 0"),
        ([COMPONENTS, COMPONENTS], "name principal_components twice"),
        ([PROBE, PROBE], "name the probe of an experiment twice"),
    ],
)
def test_a_guard_without_its_source_is_refused(guards, reason):
    with pytest.raises(ConfigError, match=reason):
        resolve(with_program(guards=guards), "demo")


CONTRAST = {"direction": "contrastive", "concept": "mine/refusal.yaml", "kappa": 0.5}


@pytest.mark.parametrize(
    "program",
    [
        {"program": "dense", "qp_lambda": None},
        {"concept_direction": ["probe", "repe"]},
        {"concept_direction": ["probe", "repe"], "mode": "adaptive"},
    ],
)
def test_every_kind_of_program_takes_guards(program):
    raw = with_program(guards=[COMPONENTS, CONTRAST], **program)
    found = resolve(raw, "demo").settings.programs["mine"]
    assert found.guarding_concepts == ["mine/refusal.yaml"] and found.guarding_experiments == []
    assert guarding_concept_names(raw) == ["refusal", "toxicity"]
    named = named_paths(resolve(raw, "demo"), "results/demo/corpus.parquet")
    assert ("programs.mine.guards.concept", "mine/refusal.yaml") in [
        (one.key, one.path) for one in named
    ]


def test_two_concept_files_of_one_name_would_share_a_direction():
    other = {**CONTRAST, "concept": "yours/refusal.yaml"}
    with pytest.raises(ConfigError, match="two concept files of one name"):
        resolve(with_program(guards=[CONTRAST, other]), "demo")
    raw = with_program(guards=[CONTRAST])
    programs = raw["experiments"]["demo"]["settings"]["programs"]
    programs["other"] = {**programs["mine"], "guards": [other]}
    with pytest.raises(ConfigError, match=r"programs\.other\.guards: .*rename a file"):
        resolve(raw, "demo")


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
        ({"gate": {"probe_below": float("nan")}}, "probe_below: Input should be a finite number"),
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


def test_the_price_of_sparsity_in_the_demo_has_the_margins_of_its_floor():
    settings = resolve(PUBLISHED, "demo").settings
    floor = settings.programs["mean_difference_dense"]
    for counted in (one for one in settings.programs.values() if one.features is not None):
        assert set(counted.tau) <= set(floor.tau)
        assert settings.matched_features in counted.features


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


def test_a_setting_at_top_level_need_not_fit_experiments_that_are_not_made():
    raw = small()
    programs = {"one": {"program": "qp", "tau": [1.0], "qp_lambda": [1.0]}}
    gates = {"gated_one": {"method": "one", "gate": {"probe_below": 0.0}}}
    raw["experiments"]["other"] = {
        **raw["experiments"]["e"],
        "settings": {"programs": programs, "gated": gates},
    }
    raw["programs"] = {"two": programs["one"]}
    assert list(resolve(raw, "e").settings.programs) == ["two"]
    assert program_names(raw) == ["one", "two"]
    with pytest.raises(ConfigError, match="one is no method"):
        resolve(raw, "other")


@pytest.mark.parametrize("key", ["programs", "plans"])
def test_a_method_is_not_named_like_the_export_of_a_strength(key: str):
    value = {
        "programs": {"program": "qp", "tau": [1.0], "qp_lambda": [1.0]},
        "plans": {"experiment": "demo_praise", "arm": "corrsteer_s", "seed": 0},
    }[key]
    raw = small()
    raw["experiments"]["e"]["settings"] = {key: {"wide-1": value}}
    with pytest.raises(ConfigError, match=r"wide-1.*stands for a strength.*'wide_1'"):
        load_config(raw)
    raw["experiments"]["e"]["settings"] = {key: {"Wide": value, "wide": value}}
    with pytest.raises(ConfigError, match="'Wide' and 'wide' differ only in case"):
        load_config(raw)


@pytest.mark.parametrize("name", ["models", "Tables", "gguf"])
def test_an_experiment_is_not_named_like_a_folder_of_other_results(name: str):
    raw = small()
    raw["experiments"][name] = raw["experiments"]["e"]
    with pytest.raises(ConfigError, match=f"is a folder of other results .results/{name.lower()}"):
        load_config(raw)


def test_experiments_that_differ_only_in_case_are_refused():
    raw = small()
    raw["experiments"]["E"] = raw["experiments"]["e"]
    with pytest.raises(ConfigError, match="'e' and 'E' differ only in case"):
        load_config(raw)
