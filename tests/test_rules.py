"""Each rule is tied to its own code and settings, so another of either makes its files stale."""

import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from workflow_rules import CONFIG, CORRSTEER_JOB, JOB, ROOT, Rules, parse, wildcards_of

from steering_core.config.corrsteer_schema import SparseMethods
from steering_core.config.methods import CORRSTEER_METHODS, DEFAULT_METHODS
from steering_core.errors import ConfigError
from steering_core.runtime.digest import code_digest, used_modules
from steering_core.runtime.memory import BASE
from steering_core.storage.files import write_json
from steering_core.tables.columns import tables

#: The texts of a concept that each of the two tables is made from.
ROLES = {
    "examples": ("contrast", "personas", "queries"),
    "prompts": ("prompts", "validation_prompts"),
}
SCRIPTS = sorted((ROOT / "workflow_scripts").glob("*.py"))


@pytest.fixture(scope="module")
def rules() -> Rules:
    return parse()


def test_every_rule_has_the_digest_of_its_own_script(rules, tmp_path):
    tied = set()
    for rule in rules.rules:
        if rule.script is not None:
            script = Path(rule.script).name
            # Snakemake digests a copy of its own, whose folder is not in the digest.
            copy = shutil.copy(ROOT / "workflow_scripts" / script, tmp_path)
            assert rule.params["code"](None) == code_digest(copy), rule.name
            tied.add(script)
    assert sorted(tied) == [script.name for script in SCRIPTS]


def test_provenance_names_every_script_behind_a_result(rules):
    known = {Path(rule.script).name for rule in rules.rules if rule.script is not None}
    named = set()
    for rule in rules.rules:
        if codes := rule.params.get("codes"):
            named |= set(codes(wildcards_of(rule)))
    files = ("layer_sweep", "layer_effect", "demo", "train_saes", "gguf", "gradients", "guards")
    named |= set(rules.names["codes_of"](*files, "lora", "elsewhere", "ratings"))
    # … of `layer: auto` and `layer: effect`, of the demo, of a model whose SAEs the rules train, of
    # a GGUF file, of programs that need gradients or concept files as guards, of an adapter, of the
    # cost elsewhere, of a judge behind a server
    beside = {
        "corrsteer_planted_feature.py",
        "tables_provenance.py",
        "export_intervention.py",
        "axbench_table.py",
    }  # no table comes from them
    assert known - named <= beside


def test_every_stage_has_a_benchmark_a_log_and_a_row_in_the_table_of_floors(rules):
    stages = {rule.name: rule for rule in rules.rules if rule.script is not None}
    assert [name for name, rule in stages.items() if not rule.benchmark or not rule.log] == []
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    table = page.split("## The two numbers of each stage")[1].split("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")]
    named = re.findall(r"`(\w+)`", " ".join(line.split("|")[1] for line in rows))
    assert sorted(named) == sorted(stages)
    assert all(cell.strip() for row in rows for cell in row.split("|")[1:-1])


def test_every_csv_file_of_a_rule_has_described_columns(rules):
    # Temporary; its rows are merged into convergence.csv, which is checked.
    others = {"snapshots-{shard}"}
    # Files that a job keeps beside its output.
    kept = {"validation/{method}"}
    found = set()
    for rule in rules.rules:
        for path in map(str, rule.output):
            if not path.endswith(".csv"):
                continue
            plain = re.sub(r"{(\w+),[^}]*}", r"{\1}", path.removesuffix(".csv"))
            if not any(plain.endswith(f"/{name}") for name in others):
                fitting = [name for name in tables() if plain.endswith(f"/{name}")]
                assert len(fitting) == 1, (rule.name, path)
                found |= set(fitting)
    assert found == set(tables()) - kept


def test_other_cached_positions_make_the_cache_alone_stale(rules):
    caching = {"cache_activations", "activation_manifest", "provenance"}
    assert rules.stale(cached_positions="all") == caching


def test_another_method_makes_no_other_family_stale(rules):
    methods = [name for name in DEFAULT_METHODS if name != "socp_shared"]
    tables = {"fit_directions", "probe_effects", "norm_matched", "pareto", "provenance"}
    tables.add("experiment_page")  # names the methods that can be exported
    solved = {"solve-socp", "solve_prompts-socp"}
    shared = {"generate", "divergence", "elsewhere_text"}
    # One job has all methods; the files of the others are kept.
    assert rules.stale(methods=methods) == solved | tables | shared


@pytest.mark.parametrize(
    ("methods", "families"),
    [(["no_steering"], ["directions"]), (["qp_shared", "no_steering"], ["directions", "qp"])],
)
def test_a_family_without_a_configured_method_has_no_job(rules, monkeypatch, methods, families):
    monkeypatch.setitem(rules.names["config"], "methods", methods)
    found = rules.names["all_solutions"](JOB)
    settings = CONFIG["experiments"]["demo"]["settings"]
    declared = [*sorted(settings["programs"]), *sorted(settings["gated"])]
    assert found == [
        *(f"results/demo/solutions/{family}.parquet" for family in families),
        *(f"results/demo/plans/{name}.parquet" for name in declared),
    ]
    # The pictures show the path whether or not a program is configured.
    assert rules.names["all_paths"](JOB) == ["results/demo/paths/qp.safetensors"]


def test_the_page_has_the_picture_of_prices_where_a_program_has_counts(rules):
    pictures = {
        name: [
            Path(path).name
            for path in rules.names["page_pictures"](SimpleNamespace(experiment=name))
        ]
        for name in ("demo", "gpt2_sst2")
    }
    assert "price.svg" in pictures["demo"] and "price.svg" not in pictures["gpt2_sst2"]


@pytest.mark.parametrize(
    ("find", "results"),
    [("steering_files", "results/demo"), ("prompt_steering_files", "results/demo/prompts")],
)
def test_a_method_steers_with_the_files_of_its_own_family(rules, find, results):
    files = {
        method: rules.names[find](SimpleNamespace(**{**vars(JOB), "method": method}))
        for method in ("caa_repe", "socp_adaptive")
    }
    assert files["caa_repe"] == {
        "solutions": f"{results}/solutions/directions.parquet",
        "directions": "results/demo/directions.safetensors",
    }
    assert files["socp_adaptive"] == {
        "solutions": f"{results}/solutions/socp.parquet",
        "path": f"{results}/paths/socp.safetensors",
        **{name: f"results/demo/{name}.safetensors" for name in ("decoder", "probe")},
    }


def test_a_method_steers_new_inputs_with_what_solves_it_again(rules):
    names = ("qp_optimal", "mean_difference_qp", "gated_mean_difference")
    fixed, declared, gated = (
        rules.names["new_input_files"](SimpleNamespace(**{**vars(JOB), "method": name}))
        for name in names
    )
    assert fixed["solutions"] == "results/demo/solutions/qp.parquet"
    assert declared["decoder"] == "results/demo/decoder.safetensors"
    # Where a gate is closed, the rows of the dataset have no vector.
    assert gated["plan"] == "results/demo/prompts/plans/gated_mean_difference.safetensors"


def test_an_export_of_a_declared_program_reads_the_decoder_to_solve_new_inputs(rules):
    for method, more in (("mean_difference_qp", {"decoder"}), ("caa_repe", set()),
                         ("socp_adaptive", set())):  # fmt: skip
        job = SimpleNamespace(**{**vars(JOB), "method": method})
        own = rules.names["steering_files"](job)
        exported = rules.names["exported_files"](job)
        assert {*exported} - {*own} == more and exported.items() >= own.items()
    # … and one of a gated method the files of the method behind the gate.
    (gated, behind) = next(iter(rules.names["experiment"](JOB).settings.gated.items()))
    jobs = [SimpleNamespace(**{**vars(JOB), "method": name}) for name in (gated, behind.method)]
    found, its = (rules.names["exported_files"](job) for job in jobs)
    own = rules.names["steering_files"](jobs[0])
    assert found == own | {f"behind_{name}": file for name, file in its.items()}
    with pytest.raises(ConfigError, match="prompting adds no vector"):
        rules.names["exported_files"](SimpleNamespace(**{**vars(JOB), "method": "prompting"}))
    with pytest.raises(ConfigError, match="peft loads the directory lora"):
        rules.names["exported_files"](SimpleNamespace(**{**vars(JOB), "method": "lora"}))


def test_lora_is_trained_where_it_is_named_and_another_scale_trains_nothing(rules, monkeypatch):
    job = SimpleNamespace(**{**vars(JOB), "method": "lora"})
    folder = "results/demo/lora"
    assert rules.names["steering_files"](job) == {
        "solutions": "results/demo/solutions/adapter.parquet",
        "adapter": f"{folder}/adapter_model.safetensors",
        "adapter_config": f"{folder}/adapter_config.json",
    }
    assert "results/demo/solutions/adapter.parquet" not in rules.names["all_solutions"](JOB)
    assert "train_lora.py" not in rules.names["codes_behind"](JOB)
    other = {"scales": [0.3]}
    stale = rules.stale(lora=other)
    assert {"solve_lora", "solve_lora_prompts"} <= stale and "train_lora" not in stale
    assert "train_lora" in rules.stale(lora={"rank": 2})


def test_another_number_of_rows_fetches_nothing_again(rules):
    stale = rules.stale(rows_per_class=40, long_texts="truncate")
    assert "examples" in stale and not {"fetch", "fetch_sweep"} & stale


@pytest.mark.parametrize(
    ("settings", "stale"),
    [
        ({"new_tokens": 7}, {"generate"}),
        ({"draws": 3}, {"generate", "pareto"}),
        ({"temperature": 0.5, "top_p": 0.5}, {"generate", "estimate_fisher"}),
        ({"n_prompts": 7}, {"prompts"}),
        ({"n_validation_prompts": 7}, {"prompts"}),
        ({"topk": 7}, {"fit_directions"}),
    ],
)
def test_a_setting_of_texts_leaves_what_is_fitted_on_rows_alone(rules, settings, stale):
    assert rules.stale(**settings) == stale | {"provenance"}


def test_prompts_of_the_concept_matter_to_their_own_table_alone(rules, tmp_path, monkeypatch):
    file = ROOT / CONFIG["tasks"]["sst2"]["concept"]
    written = yaml.safe_load(file.read_text(encoding="utf-8"))
    digest = {name: rules.names["concept_texts"](*roles) for name, roles in ROLES.items()}

    def digests(**changed):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.yaml"
        path.write_text(yaml.safe_dump({**written, **changed}), encoding="utf-8")
        task = SimpleNamespace(concept=str(path))
        monkeypatch.setitem(rules.names, "experiment", lambda job: SimpleNamespace(task=task))
        return {name: one(JOB) for name, one in digest.items()}

    before = digests()
    assert digests(description="in other words") == before
    for role, table in (("prompts", "prompts"), ("validation_prompts", "prompts")):
        now = digests(**{role: written[role][1:]})
        assert [name for name in ROLES if now[name] != before[name]] == [table]
    for role in ("contrast", "queries"):
        now = digests(**{role: written[role][1:]})
        assert [name for name in ROLES if now[name] != before[name]] == ["examples"]


def test_a_job_asks_for_what_its_model_needs_once_that_is_fetched(rules, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ask, cores = rules.names["megabytes"](16000, model=1.5, sae=2), rules.names["cores"]
    assert [ask(JOB, 1), ask(JOB, 2), cores(JOB)] == [16000, 32000, 2]
    fetched = {
        "model": {"dtype": "float32"},
        "shape": {"d_model": 100},
        "saes": [{"d_sae": 5000}],
        "parameters": {"model": 1_000_000, "judges": 0},
    }
    for job in (JOB, CORRSTEER_JOB):
        folder = f"{job.run}/corrsteer" if job is CORRSTEER_JOB else job.experiment
        write_json(Path("results", folder, "resources.json"), fetched)
        needed = BASE + round(1.5 * 4 + 2 * 4)
        assert [ask(job, 1), ask(job, 2), cores(job)] == [needed, 2 * needed, 1]
    # What reads no model asks for the same as before.
    assert rules.names["megabytes"](8000)(JOB, 1) == 8000


def test_methods_are_shared_by_as_many_jobs_as_shards(rules, monkeypatch):
    def of(shard):
        return list(rules.names["shard_methods"](SimpleNamespace(experiment="demo", shard=shard)))

    names = rules.names["all_methods"](JOB)
    assert of("0") == names and len(names) > 10
    files = rules.names["methods_of"]("{shard}")
    assert files(JOB) == ["0"]
    monkeypatch.setitem(rules.names["config"], "shards", 3)
    assert sorted(of("0") + of("1") + of("2")) == sorted(names)
    assert files(JOB) == ["0", "1", "2"]
    monkeypatch.setitem(rules.names["config"], "shards", 1000)
    assert len(files(JOB)) == len(names)  # none has no method


def test_arms_are_shared_by_as_many_jobs_as_shards_and_read_where_they_are(rules):
    """Two jobs more than one, and the files that readers take the answers from."""
    names, run = rules.names, CORRSTEER_JOB.run

    def of(job):
        wildcards = SimpleNamespace(**{**vars(CORRSTEER_JOB), "shard": str(job)})
        return list(names["shared_arms"](wildcards)), names["shared_sparse_methods"](wildcards)

    arms, methods = of(0)
    found = names["CORRSTEER"][run].settings
    assert arms == ["unsteered", *found.arms] and methods == list(CORRSTEER_METHODS)
    folder = f"results/{run}/corrsteer/seed-0"
    files = {method: names["answers_of"](run, 0, method) for method in names["arms_of"](run)}
    assert {files[arm] for arm in arms} == {f"{folder}/answers-0.parquet"}
    assert {files[method] for method in methods} == {f"{folder}/sparse_methods-0.parquet"}
    tuned = names["answers_of"](run, 0, "fine_tuning")
    assert tuned == f"{folder}/answers/fine_tuning.parquet"

    with rules.corrsteer_settings(shards=3):
        jobs = [of(job) for job in range(3)]
        assert sorted(arm for job in jobs for arm in job[0]) == sorted(arms)
        assert sorted(method for job in jobs for method in job[1]) == sorted(methods)
        for number, (some_arms, some_methods) in enumerate(jobs):
            for kind, shared in (("answers", some_arms), ("sparse_methods", some_methods)):
                read = {names["answers_of"](run, 0, method) for method in shared}
                assert read == {f"{folder}/{kind}-{number}.parquet"}


def test_declared_programs_stand_behind_the_methods_of_a_task(rules):
    names, run = rules.names, CORRSTEER_JOB.run
    job = SimpleNamespace(**{**vars(CORRSTEER_JOB), "shard": "0"})
    dense = {"program": "dense", "tau": [1.0]}
    programs = {"floor": dense, "in_kl": {**dense, "metric": "fisher"}}
    declared = SparseMethods(methods=["qp_optimal"], programs=programs)
    assert names["models_in_memory"](job) == 1.5 and names["shared_programs"](job) == {}
    with rules.corrsteer_settings(sparse_methods=SparseMethods()):
        plain = names["sparse_settings"](job)
    with rules.corrsteer_settings(sparse_methods=declared):
        assert names["shared_sparse_methods"](job) == ["qp_optimal", "floor", "in_kl"]
        assert names["arms_of"](run)[-2:] == ["floor", "in_kl"]
        read = {names["answers_of"](run, 0, name) for name in programs}
        assert read == {f"results/{run}/corrsteer/seed-0/sparse_methods-0.parquet"}
        given = names["shared_programs"](job)
        assert given["floor"]["fisher"] is None and given["in_kl"]["fisher"]["texts"] == 300
        assert names["models_in_memory"](job) == 2.5
        assert names["sparse_settings"](job) == plain  # programs make no other method stale
    with rules.corrsteer_settings(sparse_methods=declared, shards=3):
        shards = [SimpleNamespace(**{**vars(job), "shard": str(k)}) for k in range(3)]
        assert [list(names["shared_programs"](one)) for one in shards] == [[], ["floor"], ["in_kl"]]
    assert "corrsteer_sparse_methods" in rules.stale_of_corrsteer(sparse_methods=declared)


def test_a_plan_that_is_evaluated_elsewhere_needs_no_answers(rules, monkeypatch):
    names = rules.names
    plan = names["plan_and_validation"](CORRSTEER_JOB)
    folder = f"results/{CORRSTEER_JOB.run}/corrsteer/seed-0/plans"
    assert plan == {
        "plan": f"{folder}/corrsteer_p.safetensors",
        "validation": f"{folder}/corrsteer_p.validation.csv",
    }
    assert names["PLAN_SOURCES"] == set()
    assert names["shared_arm_files"](CORRSTEER_JOB)["validations"] == []
    # Where both are made, one waits for the other.
    monkeypatch.setitem(names, "PLAN_SOURCES", {(CORRSTEER_JOB.run, "corrsteer_p", 0)})
    files = names["shared_arm_files"](CORRSTEER_JOB)
    assert files["validations"] == [plan["validation"]] and plan["plan"] in files["plans"]
    other = SimpleNamespace(**{**vars(CORRSTEER_JOB), "seed": "1"})
    assert names["shared_arm_files"](other)["validations"] == []


def modules(script: str) -> set[str]:
    found = used_modules(ROOT / "workflow_scripts" / script)
    return {file.relative_to(ROOT / "steering_core").as_posix() for file in found}


#: What only the rules use. Stages get the values that they read, so an edit here reruns none.
OF_RULES = {
    f"config/{name}.py"
    for name in ("schema", "layers", "resolve", "references", "requests", "paths")
} | {f"config/corrsteer_{name}.py" for name in ("schema", "resolve")}


@pytest.mark.parametrize("script", [script.name for script in SCRIPTS])
def test_stages_depend_on_no_schema_and_on_nothing_of_the_other_half(script):
    used = modules(script)
    assert not OF_RULES & used
    if not script.startswith("corrsteer"):
        assert [name for name in used if re.search("corrsteer", name)] == []


def test_a_target_that_was_read_as_a_configuration_file_is_named_with_the_right_order():
    with pytest.raises(ConfigError, match="was read as a configuration file") as caught:
        parse("mine.yaml", "results/demo/provenance.json")
    order = "snakemake --cores N results/demo/provenance.json --configfile mine.yaml"
    assert str(caught.value).endswith(order)
    assert parse("mine.yaml", "my results/more.yaml").rules


def test_local_weights_are_inputs_so_that_an_overwritten_sae_is_noticed(rules, tmp_path):
    for layer in (1, 2):
        (tmp_path / f"layer_{layer}").mkdir()
        for name in ("cfg.json", "sae_weights.safetensors", "notes.txt"):
            (tmp_path / f"layer_{layer}" / name).touch()
    saes = SimpleNamespace(path=f"{tmp_path}/layer_{{layer}}")

    def of(layers):
        settings, model = SimpleNamespace(layers=layers), SimpleNamespace(sae=saes)
        found = rules.names["saes_of_layers"](SimpleNamespace(model=model, settings=settings))
        return [str(Path(file).relative_to(tmp_path)) for file in found]

    assert of([2]) == ["layer_2/cfg.json", "layer_2/sae_weights.safetensors"]
    assert len(of("all")) == 4
    saes.path = None
    assert of("all") == []
