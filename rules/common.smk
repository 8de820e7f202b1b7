# What all rules share: the validated configuration and the parameters made from it.
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

#: What an experiment delivers.
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

#: Settings that make the table of texts of a dataset.
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

#: What the rules of the products write beside them.
BESIDE = ["features.csv", "frontier.csv", "frontier_knots.csv", "sweep.csv"]


wildcard_constraints:
    experiment="|".join(EXPERIMENTS),
    method="|".join(METHODS),
    shard=r"\d+",


def targets_known():
    """Whether this is the user's own process and knows what is asked for.

    It does from the first job that is made. A job's own process knows of itself alone.
    """
    return workflow.is_main_process and workflow.dag_settings is not None


@cache
def check_config():
    """Refuse a setting given with `--config` that no experiment of this run reads, once a run."""
    if not targets_known():
        return
    asked = asked_families(workflow.dag_settings.targets, CORRSTEER)
    for warning in check_top_level(config, workflow.config_settings.config, asked):
        logger.warning(f"config: {warning}")


_RESOLVED = {}


def experiment(wildcards):
    """The resolved experiment of a job; resolved once, since every parameter of a job asks."""
    check_config()
    key = wildcards.experiment, repr(config)
    if key not in _RESOLVED:
        found = resolve(config, wildcards.experiment)
        if targets_known():
            # Raised for each parameter of each job. An error in the inputs of one rule alone is
            # lost where its results are there already.
            check_paths(experiment_paths(found), made_here)
            if Path(found.task.concept).is_file():
                check_prompts(read_concept(found.task.concept), found.settings)
        _RESOLVED[key] = found
    return _RESOLVED[key]


def settings(*names):
    """A parameter with the named settings; a stage reruns when one of them changes."""
    return lambda wildcards: {name: getattr(experiment(wildcards).settings, name) for name in names}


def checked(found):
    """A parameter that a stage only checks beforehand: another value makes nothing stale."""
    # Snakemake takes it that a parameter made from the input changes with the input alone, and
    # does not compare it.
    return lambda wildcards, input: found(wildcards)


def model(wildcards):
    """The model section, without the settings that are passed by name."""
    return experiment(wildcards).model.model_dump(exclude={"settings"})


def task(wildcards):
    """The task section, without the settings that are passed by name."""
    return experiment(wildcards).task.model_dump(exclude={"settings"})


def code(script):
    """A digest of a script and of the modules it uses: edits of either make the rule stale."""
    return code_digest(workflow.source_path(f"../workflow_scripts/{script}"))


def codes_of(*files):
    """The digest of every script of the rules in these rule files, by the script's name."""
    scripts = {
        Path(rule.script).name
        for rule in workflow.rules
        if rule.script is not None and Path(rule.snakefile).stem in files
    }
    return {script: code(script) for script in sorted(scripts)}


def resolved(wildcards):
    """The whole resolved experiment: model, task and every setting."""
    found = experiment(wildcards)
    return {
        "model": model(wildcards),
        "task": task(wildcards),
        "settings": found.settings.model_dump(),
    }


def methods_of(pattern):
    """An input with one file for each method of the experiment."""
    return lambda wildcards: expand(
        pattern, experiment=wildcards.experiment, method=experiment(wildcards).settings.methods
    )


def megabytes(first):
    """Memory of a job in MB, doubled on every retry."""
    return lambda wildcards, attempt: first * 2 ** (attempt - 1)


def minutes(first):
    """Time limit of a job, doubled on every retry."""
    return lambda wildcards, attempt: first * 2 ** (attempt - 1)


@cache
def gpus_of(device):
    """GPUs of a job on a device. Of `auto` it is said once if the nodes' GPUs are not seen here."""
    found = gpus_on(device)
    if device == "auto" and not found and workflow.is_main_process and not workflow.local_exec:
        logger.warning(
            "device: auto finds no GPU on this machine, which submits the jobs, so all of them run "
            "on CPUs. If the nodes have GPUs, give --config device=cuda."
        )
    return found


def gpus(wildcards):
    """GPUs of a job that runs the experiment's model."""
    return gpus_of(experiment(wildcards).settings.device)


def made_here(path):
    """Whether a rule makes a file, or the directory that it lies in."""
    names = [str(name) for name in (Path(path), *Path(path).parents)]
    makers = [maker for maker in workflow.rules if maker.name != "unknown_target"]
    return any(maker.is_producer(name) for maker in makers for name in names)


def files_here(sources):
    """Those of what an experiment names that are files here, or are made by other rules."""
    paths = [fixed_part(name) for name in sources if name]
    return [path for path in paths if made_here(path) or Path(path).exists()]


def local_sources(wildcards):
    """Model, SAEs, dataset and judge that are files here."""
    found = experiment(wildcards)
    judge = found.task.classifier
    return files_here(
        [found.model.id, found.model.sae.path, found.task.dataset, judge and judge.lexicon]
    )
