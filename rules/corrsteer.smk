# CorrSteer: select features by correlation with success while generating, steer, evaluate.
from dataclasses import asdict

from steering_core.config.corrsteer_resolve import load_corrsteer, load_section
from steering_core.corrsteer.arms import UNSTEERED, needs_validation, variants
from steering_core.corrsteer.cells import methods_needed
from steering_core.corrsteer.published import FILES, cells
from steering_core.corrsteer.tasks import find_task

CORRSTEER = load_corrsteer(config)

#: The cells of the published tables by table and name.
CELLS = {
    table: {
        cell.name: cell
        for cell in cells(table, workflow.source_path(f"../resources/published/{file}"))
    }
    for table, file in FILES.items()
}

#: Answers of any method, whichever rule makes them.
ANSWERS = "results/{run}/corrsteer/seed-{seed}/answers/{method}.parquet"

#: Settings that a stage needs to answer prompts.
ANSWERING = (
    "new_tokens",
    "restrict_options",
    "chain_of_thought",
    "published_site",
    "batch_rows",
    "device",
)


wildcard_constraints:
    run="|".join(CORRSTEER) or "(?!)",
    seed=r"\d+",
    arm=r"(?!(fine_tuning|convex_optimal|qp_optimal)\b)[A-Za-z][A-Za-z0-9_-]*",
    table="|".join(FILES),
    cell=r"[^/]+",


localrules:
    corrsteer,
    corrsteer_tables,
    corrsteer_fetch,
    corrsteer_cell,
    corrsteer_table,


def corrsteer_settings(*names):
    """A parameter with the named settings of a CorrSteer experiment."""
    return lambda wildcards: {
        name: getattr(CORRSTEER[wildcards.run].settings, name) for name in names
    }


def corrsteer_model(wildcards):
    """The model section, without the settings that are passed by name."""
    return CORRSTEER[wildcards.run].model.model_dump(exclude={"settings"})


def corrsteer_task(wildcards):
    """The task section, without the settings that are passed by name."""
    return CORRSTEER[wildcards.run].task.model_dump(exclude={"settings"})


def corrsteer_arm(wildcards):
    """The definition of an arm; None for the unsteered model."""
    if wildcards.arm == UNSTEERED:
        return None
    return CORRSTEER[wildcards.run].settings.arms[wildcards.arm].model_dump()


def corrsteer_variants(which):
    """What selection accumulates (0), or what needs histograms (1)."""

    def found(wildcards):
        experiment = CORRSTEER[wildcards.run]
        return variants(experiment.settings.arms, find_task(experiment.task.task).pooling)[which]

    return found


def corrsteer_arms(run):
    """All methods of an experiment, the unsteered model first."""
    settings = CORRSTEER[run].settings
    tuned = [] if settings.fine_tuning.method == "none" else ["fine_tuning"]
    return [UNSTEERED, *settings.arms, *tuned, *settings.bridge.programs]


def corrsteer_sources(wildcards):
    """Model, SAEs and dataset that are files here, perhaps made by other rules."""
    found = CORRSTEER[wildcards.run]
    dataset = found.task.dataset or find_task(found.task.task).source.dataset
    sources = [found.model.id, (found.model.sae.path or "").split("/layer_{layer}")[0], dataset]
    return [s for s in sources if s and (s.startswith("results/") or Path(s).exists())]


def corrsteer_shards(pattern):
    """An input with one file a shard."""
    return lambda wildcards: expand(
        pattern,
        run=wildcards.run,
        seed=wildcards.seed,
        shard=range(CORRSTEER[wildcards.run].settings.shards),
    )


rule corrsteer:
    input:
        expand("results/{run}/corrsteer.csv", run=CORRSTEER),


rule corrsteer_fetch:
    input:
        corrsteer_sources,
    output:
        resources="results/{run}/corrsteer/resources.json",
        rows="results/{run}/corrsteer/items.parquet",
    log:
        "results/{run}/logs/corrsteer_fetch.log",
    retries: 2
    params:
        model=corrsteer_model,
        task=corrsteer_task,
        settings=corrsteer_settings("layers", "max_tokens", "new_tokens", "published_prompt"),
        code=code("corrsteer_fetch.py"),
    script:
        "../workflow_scripts/corrsteer_fetch.py"


rule corrsteer_examples:
    input:
        resources=rules.corrsteer_fetch.output.resources,
        rows=rules.corrsteer_fetch.output.rows,
    output:
        examples="results/{run}/corrsteer/seed-{seed}/examples.parquet",
        summary="results/{run}/corrsteer/seed-{seed}/examples.json",
    log:
        "results/{run}/logs/corrsteer_examples-{seed}.log",
    params:
        model=corrsteer_model,
        task=corrsteer_task,
        settings=corrsteer_settings(
            "train_rows",
            "validation_rows",
            "test_rows",
            "own_test_fraction",
            "validation_share",
            "long_prompts",
            "few_shot",
            "chain_of_thought",
            "chat_template",
        ),
        code=code("corrsteer_examples.py"),
    script:
        "../workflow_scripts/corrsteer_examples.py"


rule corrsteer_select:
    input:
        resources=rules.corrsteer_fetch.output.resources,
        examples=rules.corrsteer_examples.output.examples,
    output:
        selection=temp("results/{run}/corrsteer/seed-{seed}/selection-{shard}.safetensors"),
        answers=temp("results/{run}/corrsteer/seed-{seed}/selection-{shard}.parquet"),
        snapshots=temp("results/{run}/corrsteer/seed-{seed}/snapshots-{shard}.csv"),
    log:
        "results/{run}/logs/corrsteer_select-{seed}-{shard}.log",
    benchmark:
        "results/{run}/benchmarks/corrsteer_select-{seed}-{shard}.tsv"
    threads: 2
    params:
        model=corrsteer_model,
        task=corrsteer_task,
        settings=corrsteer_settings(*ANSWERING, "snapshots", "shards"),
        variants=corrsteer_variants(0),
        histograms=corrsteer_variants(1),
        code=code("corrsteer_select.py"),
    script:
        "../workflow_scripts/corrsteer_select.py"


rule corrsteer_merge:
    input:
        selections=corrsteer_shards(rules.corrsteer_select.output.selection),
        answers=corrsteer_shards(rules.corrsteer_select.output.answers),
        snapshots=corrsteer_shards(rules.corrsteer_select.output.snapshots),
    output:
        selection="results/{run}/corrsteer/seed-{seed}/selection.safetensors",
        answers="results/{run}/corrsteer/seed-{seed}/training_answers.parquet",
        convergence="results/{run}/corrsteer/seed-{seed}/convergence.csv",
    log:
        "results/{run}/logs/corrsteer_merge-{seed}.log",
    params:
        code=code("corrsteer_merge.py"),
    script:
        "../workflow_scripts/corrsteer_merge.py"


rule corrsteer_plan:
    input:
        resources=rules.corrsteer_fetch.output.resources,
        selection=rules.corrsteer_merge.output.selection,
    output:
        plan="results/{run}/corrsteer/seed-{seed}/plans/{arm}.safetensors",
        features="results/{run}/corrsteer/seed-{seed}/plans/{arm}.csv",
    log:
        "results/{run}/logs/corrsteer_plan-{seed}-{arm}.log",
    params:
        model=corrsteer_model,
        task=corrsteer_task,
        arm=corrsteer_arm,
        settings=corrsteer_settings("keep", "published_site"),
        code=code("corrsteer_plan.py"),
    script:
        "../workflow_scripts/corrsteer_plan.py"


def corrsteer_plan_of(wildcards):
    """The plan of an arm: its own, or that of the experiment whose features it takes."""
    source = CORRSTEER[wildcards.run].settings.arms[wildcards.arm].features_from
    run, arm = (wildcards.run, wildcards.arm) if source is None else (source.experiment, source.arm)
    return expand(rules.corrsteer_plan.output.plan, run=run, seed=wildcards.seed, arm=arm)[0]


rule corrsteer_validate:
    input:
        resources=rules.corrsteer_fetch.output.resources,
        examples=rules.corrsteer_examples.output.examples,
        plan=corrsteer_plan_of,
    output:
        validation="results/{run}/corrsteer/seed-{seed}/validation/{arm}.csv",
    log:
        "results/{run}/logs/corrsteer_validate-{seed}-{arm}.log",
    benchmark:
        "results/{run}/benchmarks/corrsteer_validate-{seed}-{arm}.tsv"
    threads: 2
    params:
        model=corrsteer_model,
        task=corrsteer_task,
        settings=corrsteer_settings(*ANSWERING),
        code=code("corrsteer_validate.py"),
    script:
        "../workflow_scripts/corrsteer_validate.py"


def corrsteer_steering(wildcards):
    """What an arm needs beside the examples."""
    if wildcards.arm == UNSTEERED:
        return {}
    found = {"plan": corrsteer_plan_of(wildcards)}
    if needs_validation(CORRSTEER[wildcards.run].settings.arms[wildcards.arm]):
        found["validation"] = expand(rules.corrsteer_validate.output.validation, **wildcards)[0]
    return found


rule corrsteer_answer:
    input:
        unpack(corrsteer_steering),
        resources=rules.corrsteer_fetch.output.resources,
        examples=rules.corrsteer_examples.output.examples,
    output:
        answers="results/{run}/corrsteer/seed-{seed}/answers/{arm}.parquet",
    log:
        "results/{run}/logs/corrsteer_answer-{seed}-{arm}.log",
    benchmark:
        "results/{run}/benchmarks/corrsteer_answer-{seed}-{arm}.tsv"
    threads: 2
    params:
        model=corrsteer_model,
        task=corrsteer_task,
        arm=corrsteer_arm,
        settings=corrsteer_settings(*ANSWERING),
        code=code("corrsteer_answer.py"),
    script:
        "../workflow_scripts/corrsteer_answer.py"


rule corrsteer_fine_tune:
    input:
        resources=rules.corrsteer_fetch.output.resources,
        examples=rules.corrsteer_examples.output.examples,
    output:
        answers="results/{run}/corrsteer/seed-{seed}/answers/fine_tuning.parquet",
        training="results/{run}/corrsteer/seed-{seed}/fine_tuning.json",
    log:
        "results/{run}/logs/corrsteer_fine_tune-{seed}.log",
    benchmark:
        "results/{run}/benchmarks/corrsteer_fine_tune-{seed}.tsv"
    threads: 2
    params:
        model=corrsteer_model,
        task=corrsteer_task,
        fine_tuning=lambda wildcards: CORRSTEER[wildcards.run].settings.fine_tuning.model_dump(),
        settings=corrsteer_settings(*ANSWERING),
        code=code("corrsteer_fine_tune.py"),
    script:
        "../workflow_scripts/corrsteer_fine_tune.py"


rule corrsteer_bridge:
    input:
        resources=rules.corrsteer_fetch.output.resources,
        examples=rules.corrsteer_examples.output.examples,
        training=rules.corrsteer_merge.output.answers,
        plan=lambda wildcards: expand(
            rules.corrsteer_plan.output.plan,
            run=wildcards.run,
            seed=wildcards.seed,
            arm=CORRSTEER[wildcards.run].settings.bridge.arm,
        )[0],
    output:
        answers="results/{run}/corrsteer/seed-{seed}/answers/{program}.parquet",
    log:
        "results/{run}/logs/corrsteer_bridge-{seed}-{program}.log",
    benchmark:
        "results/{run}/benchmarks/corrsteer_bridge-{seed}-{program}.tsv"
    wildcard_constraints:
        program="convex_optimal|qp_optimal",
    threads: 2
    params:
        model=corrsteer_model,
        task=corrsteer_task,
        bridge=lambda wildcards: CORRSTEER[wildcards.run].settings.bridge.model_dump(),
        settings=corrsteer_settings(*ANSWERING),
        code=code("corrsteer_bridge.py"),
    script:
        "../workflow_scripts/corrsteer_bridge.py"


rule corrsteer_report:
    input:
        answers=lambda wildcards: expand(
            ANSWERS,
            run=wildcards.run,
            seed=CORRSTEER[wildcards.run].settings.seeds,
            method=corrsteer_arms(wildcards.run),
        ),
    output:
        table="results/{run}/corrsteer.csv",
        page=report(
            "results/{run}/corrsteer_changes.html",
            caption="report/corrsteer_changes.rst",
            category="{run}",
            labels={"what": "what steering changed"},
        ),
    log:
        "results/{run}/logs/corrsteer_report.log",
    params:
        seeds=lambda wildcards: CORRSTEER[wildcards.run].settings.seeds,
        arms=lambda wildcards: corrsteer_arms(wildcards.run),
        settings=corrsteer_settings("bootstrap_resamples"),
        code=code("corrsteer_report.py"),
    script:
        "../workflow_scripts/corrsteer_report.py"


def corrsteer_cell_of(wildcards):
    """The published cell of a job."""
    return CELLS[wildcards.table][wildcards.cell]


def corrsteer_cell_experiment(wildcards):
    """The experiment that stands for a published cell."""
    return f"{load_section(config).tables_model}_{corrsteer_cell_of(wildcards).task}"


def corrsteer_cell_answers(wildcards):
    """Seed and method of every table of answers that a cell is measured from."""
    run, cell = corrsteer_cell_experiment(wildcards), corrsteer_cell_of(wildcards)
    if run not in CORRSTEER or cell.method not in corrsteer_arms(run):
        return []
    seeds = CORRSTEER[run].settings.seeds
    return [(seed, method) for seed in seeds for method in methods_needed(cell)]


rule corrsteer_cell:
    input:
        lambda wildcards: [
            expand(
                ANSWERS,
                run=corrsteer_cell_experiment(wildcards),
                seed=seed,
                method=method,
            )[0]
            for seed, method in corrsteer_cell_answers(wildcards)
        ],
    output:
        cell="results/tables/corrsteer/{table}/{cell}.json",
    log:
        "results/tables/logs/corrsteer_cell-{table}-{cell}.log",
    params:
        cell=lambda wildcards: asdict(corrsteer_cell_of(wildcards)),
        experiment=corrsteer_cell_experiment,
        answers=corrsteer_cell_answers,
        bootstrap_resamples=2000,
        code=code("corrsteer_cell.py"),
    script:
        "../workflow_scripts/corrsteer_cell.py"


rule corrsteer_table:
    input:
        lambda wildcards: expand(
            rules.corrsteer_cell.output.cell, table=wildcards.table, cell=CELLS[wildcards.table]
        ),
    output:
        table="results/tables/corrsteer_{table}.csv",
    log:
        "results/tables/logs/corrsteer_table-{table}.log",
    params:
        code=code("corrsteer_table.py"),
    script:
        "../workflow_scripts/corrsteer_table.py"


rule corrsteer_tables:
    input:
        expand(rules.corrsteer_table.output.table, table=FILES),
