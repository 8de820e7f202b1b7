# Shared by all rules: the validated configuration, and parameters made from it.
from functools import cache
from pathlib import Path

from snakemake.logging import logger

from steering_core.runtime.machine import gpus_on
from steering_core.runtime.digest import code_digest
from steering_core.config import load_config, resolve
from steering_core.config.command_line import refuse_targets, with_nulls
from steering_core.config.families import asked_families, check_top_level
from steering_core.config.methods import METHODS
from steering_core.config.paths import check_paths, experiment_paths, fixed_part
from steering_core.data.concept import check_prompts, read_concept

refuse_targets(workflow.config_settings.configfiles, Path.cwd())
config.update(with_nulls(config, workflow.config_settings.config))

EXPERIMENTS = sorted(load_config(config)[0].experiments)

#: The results of an experiment.
PRODUCTS = [
    "pareto.csv",
    "pareto.svg",
    "sweep.svg",
    "generations.html",
    "features.html",
    "frontier.svg",
    "variants.csv",
    "variants.svg",
    "norm_matched.csv",
    "provenance.json",
    "products.json",
]

#: Settings that determine the table of texts of a dataset.
EXAMPLE_SETTINGS = [
    "seed",
    "rows_per_class",
    "train_fraction",
    "validation_fraction",
    "test_fraction",
    "probe_folds",
    "max_tokens",
    "new_tokens",
    "long_texts",
    "n_prompts",
    "n_validation_prompts",
]

#: Further files that the rules of the products write.
BESIDE = ["features.csv", "frontier.csv", "frontier_knots.csv", "sweep.csv"]


wildcard_constraints:
    experiment="|".join(EXPERIMENTS),
    method="|".join(METHODS),
    shard=r"\d+",


def targets_known():
    """Return whether this is the main process and the requested targets are known.

    They are known once the first job is made. The process of a single job only knows that job.
    """
    return workflow.is_main_process and workflow.dag_settings is not None


@cache
def check_config():
    """Refuse a setting given with `--config` that no requested experiment uses; runs once."""
    if not targets_known():
        return
    asked = asked_families(workflow.dag_settings.targets, CORRSTEER)
    for warning in check_top_level(config, workflow.config_settings.config, asked):
        logger.warning(f"config: {warning}")


_RESOLVED = {}


def experiment(wildcards):
    """Return the resolved experiment of a job, cached because every parameter of a job needs it."""
    check_config()
    key = wildcards.experiment, repr(config)
    if key not in _RESOLVED:
        found = resolve(config, wildcards.experiment)
        if targets_known():
            # Checked for every parameter of every job. A check in the inputs of a single rule would
            # be skipped if the results of that rule exist already.
            check_paths(experiment_paths(found), made_here)
            if Path(found.task.concept).is_file():
                check_prompts(read_concept(found.task.concept), found.settings)
        _RESOLVED[key] = found
    return _RESOLVED[key]


def settings(*names):
    """Return a parameter with the named settings; a stage reruns when one of them changes."""
    return lambda wildcards: {name: getattr(experiment(wildcards).settings, name) for name in names}


def checked(found):
    """Return a parameter that a stage only checks: a new value makes no result stale."""
    # Snakemake does not compare parameters that depend on `input`: it assumes that they change
    # only with the input.
    return lambda wildcards, input: found(wildcards)


def model(wildcards):
    """Return the model section without its settings, which are passed by name."""
    return experiment(wildcards).model.model_dump(exclude={"settings"})


def task(wildcards):
    """Return the task section without its settings, which are passed by name."""
    return experiment(wildcards).task.model_dump(exclude={"settings"})


def code(script):
    """Return a digest of a script and the modules it uses; a change of either reruns the rule."""
    return code_digest(workflow.source_path(f"../workflow_scripts/{script}"))


def codes_of(*files):
    """Return the digest of every script in these rule files, by the script's name."""
    scripts = {
        Path(rule.script).name
        for rule in workflow.rules
        if rule.script is not None and Path(rule.snakefile).stem in files
    }
    return {script: code(script) for script in sorted(scripts)}


def resolved(wildcards):
    """Return the whole resolved experiment: model, task and every setting."""
    found = experiment(wildcards)
    return {
        "model": model(wildcards),
        "task": task(wildcards),
        "settings": found.settings.model_dump(),
    }


def methods_of(pattern):
    """Return an input with one file for each method of the experiment."""
    return lambda wildcards: expand(
        pattern, experiment=wildcards.experiment, method=experiment(wildcards).settings.methods
    )


def megabytes(first):
    """Return the memory of a job in MB, doubled on every retry."""
    return lambda wildcards, attempt: first * 2 ** (attempt - 1)


def minutes(first):
    """Return the time limit of a job in minutes, doubled on every retry."""
    return lambda wildcards, attempt: first * 2 ** (attempt - 1)


@cache
def gpus_of(device):
    """Return the number of GPUs of a job; warn once if `auto` cannot see the GPUs of the nodes."""
    found = gpus_on(device)
    if device == "auto" and not found and workflow.is_main_process and not workflow.local_exec:
        logger.warning(
            "device: auto finds no GPU on this machine, which submits the jobs, so all jobs run on "
            "CPUs. If the nodes have GPUs, give --config device=cuda."
        )
    return found


def gpus(wildcards):
    """Return the number of GPUs of a job that runs the experiment's model."""
    return gpus_of(experiment(wildcards).settings.device)


def made_here(path):
    """Return whether a rule makes a file or a directory that contains it."""
    names = [str(name) for name in (Path(path), *Path(path).parents)]
    makers = [maker for maker in workflow.rules if maker.name != "unknown_target"]
    return any(maker.is_producer(name) for maker in makers for name in names)


def files_here(sources):
    """Return the sources that are local files or are made by other rules."""
    paths = [fixed_part(name) for name in sources if name]
    return [path for path in paths if made_here(path) or Path(path).exists()]


def local_sources(wildcards):
    """Return the model, SAEs, dataset and judge that are local files."""
    found = experiment(wildcards)
    judge = found.task.classifier
    return files_here(
        [found.model.id, found.model.sae.path, found.task.dataset, judge and judge.lexicon]
    )
