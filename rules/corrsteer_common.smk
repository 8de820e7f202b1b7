# Shared by CorrSteer's rules: arms, and the cells of the published tables.
from dataclasses import asdict

from steering_core.config.corrsteer_resolve import load_section
from steering_core.config.corrsteer_schema import CorrSteerSettings
from steering_core.config.methods import CORRSTEER_METHODS, UNSTEERED
from steering_core.corrsteer.pooled_statistic import needs_validation, statistics_of
from steering_core.corrsteer.published import FILES, cells, methods_needed

#: The model whose experiments are in the published tables.
TABLES_MODEL = load_section(config).tables_model

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

#: Arms that steer as a method of an experiment with pareto.csv does. Their rule is another one.
METHOD_ARMS = sorted(
    {
        name
        for found in CORRSTEER.values()
        for name, arm in found.settings.arms.items()
        if arm.intervention_from is not None
    }
)

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
    seed=r"\d+",
    arm=rf"(?!({'|'.join(['fine_tuning', *CORRSTEER_METHODS, *METHOD_ARMS])})(?![A-Za-z0-9_-]))[A-Za-z][A-Za-z0-9_-]*",
    method_arm="|".join(METHOD_ARMS) or "(?!)",
    table="|".join(FILES),
    cell=r"[^/]+",


# ----------------------------------------------------------------------------------- arms
def arms_of(run):
    """Return all methods of an experiment, the unsteered model first."""
    found = CORRSTEER[run].settings
    tuned = [] if found.fine_tuning.method == "none" else ["fine_tuning"]
    return [UNSTEERED, *found.arms, *tuned, *found.sparse_methods.methods]


def arm(wildcards):
    """Return the definition of an arm, or None for the unsteered model."""
    if wildcards.arm == UNSTEERED:
        return None
    return experiment(wildcards).settings.arms[wildcards.arm].model_dump()


def accumulated(wildcards):
    """Return the pooled statistics that selection accumulates, and those that need a histogram."""
    found = experiment(wildcards)
    return statistics_of(found.settings.arms, configured_task(found.task).pooling)


def shards_of(pattern):
    """Return an input with one file for each shard."""
    return lambda wildcards: expand(
        pattern,
        run=wildcards.run,
        seed=wildcards.seed,
        shard=range(experiment(wildcards).settings.shards),
    )


def plan_of(wildcards):
    """Return the vectors of an arm: its own, or those of the arm in `features_from`."""
    source = experiment(wildcards).settings.arms[wildcards.arm].features_from
    run, arm = (wildcards.run, wildcards.arm) if source is None else (source.experiment, source.arm)
    return expand(PLAN, run=run, seed=wildcards.seed, arm=arm)[0]


def arm_files(wildcards):
    """Return the files that an arm steers with."""
    if wildcards.arm == UNSTEERED:
        return {}
    files = {"plan": plan_of(wildcards)}
    if needs_validation(experiment(wildcards).settings.arms[wildcards.arm]):
        job = {"run": wildcards.run, "seed": wildcards.seed, "arm": wildcards.arm}
        files["validation"] = expand(VALIDATION, **job)[0]
    return files


def method_source(wildcards):
    """The method that an arm steers with, and the experiment that it is fitted in."""
    return experiment(wildcards).settings.arms[wildcards.method_arm].intervention_from


def method_arm_files(wildcards):
    """The files of the other experiment that its method steers with."""
    source = method_source(wildcards)
    files = {
        **steering_files(source),
        "layer": rules.pick_layer.output.layer,
        "experiment_resources": rules.fetch.output.resources,
    }
    if source.strength == "selected":
        files["pareto"] = rules.pareto.output.pareto
    return {name: expand(file, experiment=source.experiment)[0] for name, file in files.items()}


# -------------------------------------------------------------- cells of published tables
def cell_of(wildcards):
    """Return the published cell of a job."""
    return CELLS[wildcards.table][wildcards.cell]


def cell_experiment(wildcards):
    """Return the name of the experiment that measures a published cell."""
    return f"{TABLES_MODEL}_{cell_of(wildcards).task}"


def cell_answers(wildcards):
    """Return seed and method of every table of answers that a cell needs."""
    run, cell = cell_experiment(wildcards), cell_of(wildcards)
    if run not in CORRSTEER or cell.method not in arms_of(run):
        return []
    seeds = CORRSTEER[run].settings.seeds
    return [(seed, method) for seed in seeds for method in methods_needed(cell)]


def cell_resamples(wildcards):
    """Return the number of bootstrap resamples; the default if the cell has no experiment."""
    found = CORRSTEER.get(cell_experiment(wildcards))
    return (found.settings if found else CorrSteerSettings()).bootstrap_resamples
