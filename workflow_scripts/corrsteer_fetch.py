"""Pin, download and check what a CorrSteer experiment takes from outside."""

from steering_core.runtime.job import job

with job(snakemake, network=True):
    from steering_core.config.corrsteer_task import CorrSteerTask
    from steering_core.config.model import Model
    from steering_core.config.view import SettingsView
    from steering_core.corrsteer.early_checks import check_examples
    from steering_core.corrsteer.fetch import describe_run, download_run
    from steering_core.corrsteer.read_items import fetch_items
    from steering_core.corrsteer.tasks import find_task
    from steering_core.models.hub import persistently
    from steering_core.storage.files import write_json
    from steering_core.storage.parquet import write_parquet

    given = SettingsView(snakemake.params.settings)
    entry = CorrSteerTask(**snakemake.params.task)
    model, task = Model(**snakemake.params.model), find_task(entry.task)
    # What is small and can be wrong comes before gigabytes of weights.
    found = persistently(lambda: describe_run(model, task, given))
    items, dataset = persistently(
        lambda: fetch_items(entry, published_prompt=given.published_prompt)
    )
    settings = SettingsView(snakemake.params.examples)
    check_examples(items, entry, settings, model, found, snakemake.params.seeds[0])
    persistently(lambda: download_run(model, task, found))
    write_parquet(snakemake.output.rows, items)
    write_json(snakemake.output.resources, {**found, "dataset": dataset})
