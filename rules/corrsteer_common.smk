# Shared by CorrSteer's rules: arms, and the cells of the published tables.
from dataclasses import asdict

from steering_core.config.corrsteer_resolve import load_section
from steering_core.config.corrsteer_schema import CorrSteerSettings
from steering_core.config.methods import UNSTEERED
from steering_core.config.resolve import plan_sources
from steering_core.corrsteer.scores import needs_validation, statistics_of
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

#: Answers under the arms of one of the jobs that share them, and under the sparse methods of one.
#: The job keeps those under each in `answers/{method}.parquet`.
ANSWERS = "results/{run}/corrsteer/seed-{seed}/answers-{shard}.parquet"
SPARSE_ANSWERS = "results/{run}/corrsteer/seed-{seed}/sparse_methods-{shard}.parquet"

#: Answers under a method that has a job of its own.
ANSWERS_ALONE = "results/{run}/corrsteer/seed-{seed}/answers/{method}.parquet"

#: Vectors of an arm.
PLAN = "results/{run}/corrsteer/seed-{seed}/plans/{arm}.safetensors"

#: The validation accuracy of each layer alone, for a plan that is evaluated like a method. Jobs
#: that validate keep it in `validation/{arm}.csv`.
VALIDATION = "results/{run}/corrsteer/seed-{seed}/plans/{arm}.validation.csv"

#: Run, arm and seed of all plans that are evaluated like methods.
PLAN_SOURCES = plan_sources(config)

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
    arm=r"[A-Za-z][A-Za-z0-9_-]*",
    method_arm="|".join(METHOD_ARMS) or "(?!)",
    table="|".join(FILES),
    cell=r"[^/]+",


# ----------------------------------------------------------------------------------- arms
def arms_of(run):
    """Return all methods of an experiment, the unsteered model first."""
    found = CORRSTEER[run].settings
    tuned = [] if found.fine_tuning.method == "none" else ["fine_tuning"]
    return [UNSTEERED, *found.arms, *tuned, *found.sparse_methods.names]


def arm(wildcards):
    """Return the definition of an arm."""
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


def plan_and_validation(wildcards):
    """Return the files that a plan evaluated like a method steers with."""
    files = {"plan": plan_of(wildcards)}
    if needs_validation(experiment(wildcards).settings.arms[wildcards.arm]):
        job = {"run": wildcards.run, "seed": wildcards.seed, "arm": wildcards.arm}
        files["validation"] = expand(VALIDATION, **job)[0]
    return files


def arms_with_plan(found):
    """Return the unsteered model and the arms that steer with a plan, from some settings."""
    own = [name for name, arm in found.arms.items() if arm.intervention_from is None]
    return [UNSTEERED, *own]


def shared_arms(wildcards):
    """Return the arms of one of the jobs that share them, with what each steers with.

    The unsteered model is among them, with None.
    """
    found, arms = experiment(wildcards).settings, {}
    for name in arms_with_plan(found)[int(wildcards.shard) :: found.shards]:
        if name == UNSTEERED:
            arms[name] = None
            continue
        job = SimpleNamespace(run=wildcards.run, seed=wildcards.seed, arm=name)
        arms[name] = {
            "plan": plan_of(job),
            "strategy": found.arms[name].strategy,
            "validated": needs_validation(found.arms[name]),
        }
    return arms


def shared_arm_files(wildcards):
    """Return the plans of such a job, and the validations that another job makes before it.

    Both would make the file of a plan that is evaluated like a method, but not at the same time.
    """
    arms = {name: arm for name, arm in shared_arms(wildcards).items() if arm is not None}
    elsewhere = [
        name
        for name, arm in arms.items()
        if arm["validated"] and (wildcards.run, name, int(wildcards.seed)) in PLAN_SOURCES
    ]
    return {
        "plans": [*dict.fromkeys(arm["plan"] for arm in arms.values())],
        "validations": expand(VALIDATION, run=wildcards.run, seed=wildcards.seed, arm=elsewhere),
    }


def shared_sparse_methods(wildcards):
    """Return the methods of optimal sparse steering of one of the jobs that share them."""
    found = experiment(wildcards).settings
    return found.sparse_methods.names[int(wildcards.shard) :: found.shards]


def sparse_settings(wildcards):
    """Return what all methods of optimal sparse steering read; another one changes none."""
    own = {"methods", "programs", "fisher"}
    return experiment(wildcards).settings.sparse_methods.model_dump(exclude=own)


def shared_programs(wildcards):
    """Return the declared programs of one of the jobs, each with what its answers depend on.

    That is the declaration, and how the Fisher information is estimated if it is needed.
    """
    found = experiment(wildcards).settings.sparse_methods
    return {
        name: {
            "declared": found.programs[name].model_dump(),
            "fisher": found.fisher.model_dump() if found.programs[name].needs_fisher else None,
        }
        for name in shared_sparse_methods(wildcards)
        if name in found.programs
    }


def models_in_memory(wildcards):
    """Return how many times the model's size the sparse methods need: more with gradients of it."""
    found = experiment(wildcards).settings.sparse_methods
    directions = [found.concept_direction, *(one.directions for one in found.programs.values())]
    gradients = any("likelihood_gradient" in one for one in directions)
    return 2.5 if gradients or any(one.needs_fisher for one in found.programs.values()) else 1.5


def answers_of(run, seed, method):
    """Return the file that has the answers under a method, alone or with others."""
    found = CORRSTEER[run].settings
    shared = {ANSWERS: arms_with_plan(found), SPARSE_ANSWERS: found.sparse_methods.names}
    for pattern, names in shared.items():
        if method in names:
            return expand(pattern, run=run, seed=seed, shard=names.index(method) % found.shards)[0]
    return expand(ANSWERS_ALONE, run=run, seed=seed, method=method)[0]


def method_source(wildcards):
    """The method that an arm steers with, and the experiment that it is fitted in."""
    return experiment(wildcards).settings.arms[wildcards.method_arm].intervention_from


def method_experiment(wildcards):
    """The experiment that the method of an arm is fitted in."""
    return checked_experiment(method_source(wildcards).experiment, repr(config))


def method_arm_files(wildcards):
    """The files of the other experiment that its method steers with."""
    source = method_source(wildcards)
    files = {
        **new_input_files(source),
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
