# Shared by the rules of the cost elsewhere: which probes an experiment reads, and their files.
from types import SimpleNamespace

from steering_core.errors import ConfigError


wildcard_constraints:
    questions="|".join(load_section(config).tasks) or "(?!)",


def elsewhere_dataset(wildcards):
    """Return the dataset of neutral texts if it is a local file or made by another rule."""
    return there([experiment(wildcards).settings.elsewhere_text.dataset])


def elsewhere_run(wildcards):
    """Return the CorrSteer experiment whose questions are answered, after its checks."""
    name = f"{wildcards.experiment}/elsewhere/{wildcards.questions}"
    if name not in ELSEWHERE:
        raise ConfigError(
            f"{wildcards.experiment} does not answer {wildcards.questions}: add it to its "
            "setting `elsewhere`."
        )
    check_run(name)
    return ELSEWHERE[name]


def elsewhere_questions(wildcards):
    """Return the examples of a task, and what was fetched for it."""
    run = elsewhere_run(wildcards)
    names = {"run": run.name, "seed": run.settings.seeds[0]}
    return {
        "examples": expand(rules.corrsteer_examples.output.examples, **names)[0],
        "run_resources": expand(rules.corrsteer_fetch.output.resources, **names)[0],
    }


def elsewhere_methods(wildcards):
    """Return all methods of an experiment, with the files that they steer new inputs with."""
    name = wildcards.experiment
    return {
        method: new_input_files(SimpleNamespace(experiment=name, method=method))
        for method in all_methods(wildcards)
    }


def elsewhere_steering(wildcards):
    """Return all files that the methods steer with."""
    files = (file for files in elsewhere_methods(wildcards).values() for file in files.values())
    return [*dict.fromkeys(files)]


def elsewhere_files(wildcards):
    """Return what each probe found under all methods."""
    probes = experiment(wildcards).settings.elsewhere
    if not probes:
        raise ConfigError(
            f"{wildcards.experiment} looks nowhere else: name probes, as in "
            "--config 'elsewhere=[text,mmlu]'."
        )
    return [f"results/{wildcards.experiment}/elsewhere/{probe}.parquet" for probe in probes]
