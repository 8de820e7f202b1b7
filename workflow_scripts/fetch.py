"""Pin, download and check what an experiment takes from outside."""

from steering_core.runtime.job import job

with job(snakemake, network=True):
    from steering_core.config.experiment import Experiment
    from steering_core.config.model import Model
    from steering_core.config.task import Task
    from steering_core.config.view import SettingsView
    from steering_core.data.datasets import fetch_table
    from steering_core.data.early_checks import check_examples, check_lexicon
    from steering_core.models.fetch import describe_experiment, download_experiment
    from steering_core.models.hub import persistently
    from steering_core.storage.files import write_json
    from steering_core.storage.parquet import write_parquet

    task, model = Task(**snakemake.params.task), Model(**snakemake.params.model)
    experiment = Experiment(
        name=snakemake.wildcards.experiment,
        model_name="",
        task_name="",
        model=model,
        task=task,
        settings=SettingsView(snakemake.params.settings),
    )
    # What is cheap to check comes first.
    check_lexicon(task)
    found = persistently(lambda: describe_experiment(experiment))
    # Then the dataset: a wrong column, too few rows or a text that is too long are found before
    # gigabytes of weights are here. The table of texts is made by a stage of its own.
    table, dataset = persistently(lambda: fetch_table(task))
    settings = SettingsView(snakemake.params.examples)
    check_examples(table, task, snakemake.input.concept, settings, model, found)
    persistently(lambda: download_experiment(experiment, found))
    write_parquet(snakemake.output.dataset, table)
    write_json(snakemake.output.resources, {**found, "dataset": dataset})
