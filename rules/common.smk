# Shared by all rules: the checked configuration, and the inputs and parameters made from it. What
# one stage needs is in the file of its name that ends in `_common`.
# An experiment is of one of two kinds. The wildcard `experiment` names one that delivers
# pareto.csv, `run` one of CorrSteer. Each helper below takes a job of either kind.
from functools import cache
from pathlib import Path

from snakemake.logging import logger

from steering_core.config import load_config, resolve
from steering_core.config.corrsteer_resolve import elsewhere_runs, load_corrsteer
from steering_core.config.prepared_models import with_directory
from steering_core.config.methods import METHODS
from steering_core.config.references import check_guards, check_plans
from steering_core.config.requests import (
    check_config_files,
    check_options,
    check_top_level,
    requested_experiments,
    with_nulls,
)
from steering_core.config.resolve import (
    concept_sets,
    gated_names,
    guarding_concept_names,
    plan_names,
    program_names,
)
from steering_core.corrsteer.read_items import configured_task
from steering_core.corrsteer.tasks import OPTIONS
from steering_core.early_checks import check_before_any_job
from steering_core.early_checks.judge_calls import judge_calls
from steering_core.runtime.digest import code_digest

check_config_files(workflow.config_settings.configfiles, Path.cwd())
config.update(with_nulls(config, workflow.config_settings.config))

EXPERIMENTS = sorted(load_config(config)[0].experiments)

#: CorrSteer tasks that other experiments answer to see the cost elsewhere, by name.
ELSEWHERE = elsewhere_runs(config)

#: The CorrSteer experiments, by name, and these.
CORRSTEER = {**load_corrsteer(config), **ELSEWHERE}

#: Experiments of each concept set, which one table averages over.
CONCEPT_SETS = concept_sets(config)

#: CorrSteer plans that experiments evaluate like methods.
PLANS = plan_names(config)

#: Programs that experiments declare.
PROGRAMS = program_names(config)

#: Names of the concept files that guard them.
GUARDING_CONCEPTS = guarding_concept_names(config)

#: Every gated method that an experiment declares.
GATED = gated_names(config)

#: The results of an experiment.
PRODUCTS = [
    "index.html",
    "summary.csv",
    "verdict.json",
    "matched.csv",
    "matched.svg",
    "price.csv",
    "price.svg",
    "dose.csv",
    "dose.svg",
    "pareto.csv",
    "pareto.svg",
    "pareto.html",
    "sweep.svg",
    "generations.html",
    "features.html",
    "frontier.svg",
    "variants.csv",
    "variants.svg",
    "norm_matched.csv",
    "norm_matched.svg",
    "provenance.json",
    "products.json",
]

#: Further files that the rules of the products write.
BESIDE = [
    "effect_curves.csv",
    "differences.csv",
    "judges.csv",
    "guards.csv",
    "features.csv",
    "frontier.csv",
    "frontier_knots.csv",
    "sweep.csv",
]


wildcard_constraints:
    experiment="|".join(EXPERIMENTS),
    run="|".join(CORRSTEER) or "(?!)",
    method="|".join([*METHODS, *PLANS, *PROGRAMS, *GATED]),
    shard=r"\d+",
    layer=r"\d+",
    concept_set="|".join(CONCEPT_SETS) or "(?!)",


# ------------------------------------------------------------------ checks before any job
def targets_known():
    """Return whether this is the main process and the requested targets are known.

    They are known once the first job is made. The process of a single job only knows that job.
    """
    return workflow.is_main_process and workflow.dag_settings is not None


@cache
def check_request():
    """Refuse a setting given with `--config` that has no effect on this run; runs once."""
    if not targets_known():
        return
    overrides = workflow.config_settings.config
    requested = requested_experiments(workflow.dag_settings.targets, CORRSTEER, TABLE_RUNS)
    for warning in check_top_level(config, overrides, requested.kinds):
        logger.warning(f"config: {warning}")
    tasks = {name: configured_task(found.task) for name, found in requested.runs.items()}
    check_options(overrides, requested.runs, tasks, OPTIONS)


def check_files(found):
    """Refuse an experiment with a list of all that is wrong with its files and its rows.

    This runs for the parameters of every job. A check in the inputs of a rule would be skipped if
    the results of that rule exist.
    """
    if not targets_known():
        return
    check_before_any_job(found, dataset_of(found), made_here)


@cache
def checked_experiment(name, configuration):
    """Return the experiment `name`, cached because every parameter of a job needs it."""
    found = resolve(config, name)
    check_plans(found, CORRSTEER)
    check_guards(config, found)
    check_files(found)
    return found


@cache
def check_run(name):
    """Check the files of the CorrSteer experiment `name`, once."""
    check_files(CORRSTEER[name])


def experiment(wildcards):
    """Return the experiment of a job, with its merged settings, after all checks."""
    check_request()
    if hasattr(wildcards, "run"):
        check_run(wildcards.run)
        return CORRSTEER[wildcards.run]
    return checked_experiment(wildcards.experiment, repr(config))


# ----------------------------------------------------------------------------- parameters
def settings(*names):
    """Return a parameter with the named settings. A stage reruns when one of them changes."""
    return lambda wildcards: {name: getattr(experiment(wildcards).settings, name) for name in names}


def setting(name):
    """Return a parameter with one setting, as plain values."""
    return lambda wildcards: experiment(wildcards).settings.model_dump(include={name})[name]


def target_class(wildcards):
    """Return the class that the task steers to."""
    return experiment(wildcards).task.target_class


def section(found):
    """Return a section as plain values, without its settings, which are passed by name."""
    # The stages read trained SAEs from their path, whatever they were trained on.
    return found.model_dump(exclude={"settings": True, "paired": True, "sae": {"train"}})


def model(wildcards):
    """Return the section of the model; a GGUF file is replaced by the directory made from it."""
    return section(with_directory(experiment(wildcards).model))


def task(wildcards):
    """Return the section of the task."""
    return section(experiment(wildcards).task)


def resolved(found):
    """Return the whole experiment as plain values: model, task and every setting."""
    trained = found.model.sae.train
    return {
        **({"sae_training": trained.model_dump()} if trained else {}),
        "model": section(found.model),
        "task": section(found.task),
        "settings": found.settings.model_dump(),
    }


def checked(parameter):
    """Return a parameter that a stage only checks: a new value makes no result stale."""
    # Snakemake does not compare parameters that depend on `input`: it assumes that they change
    # only with the input.
    return lambda wildcards, input: parameter(wildcards)


@cache
def say_judge_calls(name, stage):
    """Say once what a stage asks of a judge behind a server, before the first call."""
    said = judge_calls(checked_experiment(name, repr(config)), stage)
    if said is not None and targets_known():
        logger.info(said)
    return said


def judge_asked(stage):
    """Return a parameter that says, when a job is planned, how often its judge is asked at most."""
    return checked(lambda wildcards: say_judge_calls(wildcards.experiment, stage))


@cache
def digest_of(script):
    """Return a digest of a script and the modules it uses."""
    return code_digest(workflow.source_path(f"../workflow_scripts/{script}"))


def code(script):
    """Return the parameter of the rule of ``script``; a change of its code reruns the rule.

    Only where a job is planned: the digests of all scripts take longer than reading the rules.
    """
    return lambda wildcards: digest_of(script)


def codes_of(*files):
    """Return the digest of every script in these rule files, by the script's name."""
    scripts = {
        Path(rule.script).name
        for rule in workflow.rules
        if rule.script is not None and Path(rule.snakefile).stem in files
    }
    return {script: digest_of(script) for script in sorted(scripts)}


# --------------------------------------------------------------------------------- inputs
def all_methods(wildcards):
    """Return the methods, plans and declared programs of the experiment."""
    return [*experiment(wildcards).settings.methods, *plans(wildcards)]


def methods_of(pattern):
    """Return an input with the tables of all methods: a file for each of the jobs that share them."""
    return lambda wildcards: expand(
        pattern,
        experiment=wildcards.experiment,
        shard=range(min(experiment(wildcards).settings.shards, len(all_methods(wildcards)))),
    )


def plans(wildcards):
    """The names of what is evaluated like methods: CorrSteer plans, declared programs, gates."""
    found = experiment(wildcards).settings
    return [*found.plans, *found.programs, *found.gated]


def made_here(path):
    """Return whether a rule makes this file or a directory that contains it."""
    names = [str(name) for name in (Path(path), *Path(path).parents)]
    # As a module of another workflow, the rules have a prefix.
    makers = [maker for maker in workflow.rules if not maker.name.endswith("unknown_target")]
    return any(maker.is_producer(name) for maker in makers for name in names)
