# Shared by CorrSteer's rules: its experiments, the published cells, and parameters made from them.
from dataclasses import asdict

from steering_core.config.corrsteer import CorrSteerSettings
from steering_core.config.corrsteer_resolve import (
    load_corrsteer,
    load_section,
)
from steering_core.config.methods import CORRSTEER_METHODS
from steering_core.config.paths import corrsteer_paths
from steering_core.corrsteer.arms import needs_validation, variants
from steering_core.corrsteer.asked import asked_runs, check_options
from steering_core.corrsteer.published import FILES, cells, methods_needed
from steering_core.corrsteer.report import UNSTEERED
from steering_core.corrsteer.tasks import find_task

CORRSTEER = load_corrsteer(config)

#: The cells of the published tables, by table and name.
CELLS = {
    table: {
        cell.name: cell
        for cell in cells(table, workflow.source_path(f"../resources/published/{file}"))
    }
    for table, file in FILES.items()
}

#: Answers of a method. Several rules make such files.
ANSWERS = "results/{run}/corrsteer/seed-{seed}/answers/{method}.parquet"

#: Vectors of an arm, and the validation accuracy of each of its layers alone.
PLAN = "results/{run}/corrsteer/seed-{seed}/plans/{arm}.safetensors"
VALIDATION = "results/{run}/corrsteer/seed-{seed}/validation/{arm}.csv"

#: Settings that determine the table of examples.
CORRSTEER_EXAMPLE_SETTINGS = [
    "train_rows",
    "validation_rows",
    "test_rows",
    "own_test_fraction",
    "validation_share",
    "published_split",
    "long_prompts",
    "few_shot",
    "chain_of_thought",
    "chat_template",
]

#: Settings that a stage needs to answer prompts.
ANSWERING = (
    "new_tokens",
    "restrict_options",
    "chain_of_thought",
    "chat_template",
    "published_site",
    "batch_rows",
    "device",
)


wildcard_constraints:
    run="|".join(CORRSTEER) or "(?!)",
    seed=r"\d+",
    arm=rf"(?!({'|'.join(['fine_tuning', *CORRSTEER_METHODS])})(?![A-Za-z0-9_-]))[A-Za-z][A-Za-z0-9_-]*",
    table="|".join(FILES),
    cell=r"[^/]+",


@cache
def check_corrsteer_options():
    """Refuse an option given with `--config` that no requested experiment supports."""
    if not targets_known():
        return
    asked = asked_runs(workflow.dag_settings.targets, CORRSTEER, TABLE_RUNS)
    check_options(workflow.config_settings.config, CORRSTEER, asked)


@cache
def check_corrsteer_paths(run):
    """Refuse a path of an experiment that does not exist and that no rule makes."""
    if targets_known():
        found = CORRSTEER[run]
        check_paths(corrsteer_paths(found, corrsteer_dataset(found)), made_here)


def corrsteer_experiment(wildcards):
    """Return the resolved experiment of a job, after checking the run's configuration."""
    check_config()
    check_corrsteer_options()
    check_corrsteer_paths(wildcards.run)
    return CORRSTEER[wildcards.run]


def corrsteer_dataset(found):
    """Return the dataset of an experiment: its own, or else the task's."""
    return found.task.dataset or find_task(found.task.task).source.dataset


def corrsteer_settings(*names):
    """Return a parameter with the named settings of a CorrSteer experiment."""
    return lambda wildcards: {
        name: getattr(corrsteer_experiment(wildcards).settings, name) for name in names
    }


def corrsteer_model(wildcards):
    """Return the model section without its settings, which are passed by name."""
    return corrsteer_experiment(wildcards).model.model_dump(exclude={"settings", "paired"})


def corrsteer_task(wildcards):
    """Return the task section without its settings, which are passed by name."""
    return corrsteer_experiment(wildcards).task.model_dump(exclude={"settings", "paired"})


def corrsteer_arm(wildcards):
    """Return the definition of an arm, or None for the unsteered model."""
    if wildcards.arm == UNSTEERED:
        return None
    return corrsteer_experiment(wildcards).settings.arms[wildcards.arm].model_dump()


def corrsteer_accumulated(wildcards):
    """Return all variants that selection accumulates, and those that need histograms."""
    experiment = corrsteer_experiment(wildcards)
    return variants(experiment.settings.arms, find_task(experiment.task.task).pooling)


def corrsteer_variants(wildcards):
    """Return the variants that selection accumulates."""
    return corrsteer_accumulated(wildcards)[0]


def corrsteer_histograms(wildcards):
    """Return the accumulated variants that need a histogram."""
    return corrsteer_accumulated(wildcards)[1]


def corrsteer_arms(run):
    """Return all methods of an experiment, the unsteered model first."""
    settings = CORRSTEER[run].settings
    tuned = [] if settings.fine_tuning.method == "none" else ["fine_tuning"]
    return [UNSTEERED, *settings.arms, *tuned, *settings.bridge.methods]


def corrsteer_sources(wildcards):
    """Return the model, SAEs and dataset that are local files."""
    found = corrsteer_experiment(wildcards)
    return files_here([found.model.id, found.model.sae.path, corrsteer_dataset(found)])


def corrsteer_gpus(wildcards):
    """Return the number of GPUs of a job that runs the experiment's model."""
    return gpus_of(corrsteer_experiment(wildcards).settings.device)


def corrsteer_shards(pattern):
    """Return an input with one file per shard."""
    return lambda wildcards: expand(
        pattern,
        run=wildcards.run,
        seed=wildcards.seed,
        shard=range(corrsteer_experiment(wildcards).settings.shards),
    )


def corrsteer_plan_of(wildcards):
    """Return the plan of an arm: its own, or that of the arm in `features_from`."""
    source = corrsteer_experiment(wildcards).settings.arms[wildcards.arm].features_from
    run, arm = (wildcards.run, wildcards.arm) if source is None else (source.experiment, source.arm)
    return expand(PLAN, run=run, seed=wildcards.seed, arm=arm)[0]


def corrsteer_steering(wildcards):
    """Return the files that an arm steers with."""
    if wildcards.arm == UNSTEERED:
        return {}
    found = {"plan": corrsteer_plan_of(wildcards)}
    if needs_validation(corrsteer_experiment(wildcards).settings.arms[wildcards.arm]):
        found["validation"] = expand(VALIDATION, **wildcards)[0]
    return found


def corrsteer_cell_of(wildcards):
    """Return the published cell of a job."""
    return CELLS[wildcards.table][wildcards.cell]


def corrsteer_cell_experiment(wildcards):
    """Return the name of the experiment that measures a published cell."""
    return f"{load_section(config).tables_model}_{corrsteer_cell_of(wildcards).task}"


def corrsteer_cell_answers(wildcards):
    """Return seed and method of every table of answers that a cell needs."""
    run, cell = corrsteer_cell_experiment(wildcards), corrsteer_cell_of(wildcards)
    if run not in CORRSTEER or cell.method not in corrsteer_arms(run):
        return []
    seeds = CORRSTEER[run].settings.seeds
    return [(seed, method) for seed in seeds for method in methods_needed(cell)]


def corrsteer_cell_resamples(wildcards):
    """Return the number of resamples; the default if the cell has no experiment."""
    found = CORRSTEER.get(corrsteer_cell_experiment(wildcards))
    return (found.settings if found else CorrSteerSettings()).bootstrap_resamples


def corrsteer_resolved(run):
    """Return the whole resolved experiment: model, task and every setting."""
    found = CORRSTEER[run]
    return {
        "model": found.model.model_dump(exclude={"settings", "paired"}),
        "task": found.task.model_dump(exclude={"settings", "paired"}),
        "settings": found.settings.model_dump(),
    }
