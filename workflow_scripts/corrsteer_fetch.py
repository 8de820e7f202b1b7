"""Pin, download and check what a CorrSteer experiment takes from outside."""

from steering_core.runtime.job import job

with job(snakemake, network=True):
    from steering_core.config.corrsteer_task import CorrSteerTask
    from steering_core.config.model import Model
    from steering_core.config.view import SettingsView
    from steering_core.corrsteer.fetch import describe_run, download_run
    from steering_core.corrsteer.read_items import fetch_items
    from steering_core.corrsteer.tasks import find_task
    from steering_core.early_checks import check_items
    from steering_core.hub.errors import retry_while_unavailable
    from steering_core.storage.files import write_json
    from steering_core.storage.parquet import write_parquet

    given = SettingsView(snakemake.params.settings)
    entry = CorrSteerTask(**snakemake.params.task)
    model, task = Model(**snakemake.params.model), find_task(entry.task)
    # Cheap checks first: mistakes are found before gigabytes of weights are downloaded.
    found = retry_while_unavailable(lambda: describe_run(model, task, given))
    items, dataset = retry_while_unavailable(
        lambda: fetch_items(entry, published_prompt=given.published_prompt)
    )
    settings = SettingsView(snakemake.params.examples)
    check_items(items, entry, settings, model, found, snakemake.params.seeds[0])
    retry_while_unavailable(lambda: download_run(model, task, found))
    write_parquet(snakemake.output.rows, items)
    write_json(snakemake.output.resources, {**found, "dataset": dataset})
