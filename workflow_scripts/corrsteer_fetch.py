"""Pin, download and check what a CorrSteer experiment takes from outside."""

from steering_core.runtime.job import job

with job(snakemake, network=True):
    from types import SimpleNamespace

    from steering_core.config.model import Model
    from steering_core.corrsteer.fetch import describe_run, download_run
    from steering_core.corrsteer.read_items import fetch_items
    from steering_core.corrsteer.tasks import find_task
    from steering_core.early_checks import check_items
    from steering_core.hub.errors import retry_while_unavailable
    from steering_core.storage.files import write_json
    from steering_core.storage.parquet import write_parquet

    settings = SimpleNamespace(**snakemake.params.settings)
    entry = SimpleNamespace(**snakemake.params.task)
    model, task = Model(**snakemake.params.model), find_task(entry.task)
    # Cheap checks first: mistakes are found before gigabytes of weights are downloaded.
    found = retry_while_unavailable(lambda: describe_run(model, task, settings))
    items, dataset = retry_while_unavailable(
        lambda: fetch_items(entry, published_prompt=settings.published_prompt)
    )
    of_examples = SimpleNamespace(**snakemake.params.examples)
    check_items(items, entry, of_examples, model, found, snakemake.params.seeds[0])
    retry_while_unavailable(lambda: download_run(model, task, found))
    write_parquet(snakemake.output.rows, items)
    write_json(snakemake.output.resources, {**found, "dataset": dataset})
