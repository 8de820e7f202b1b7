"""Pin, download and check the model, SAEs and dataset of a CorrSteer experiment."""

from steering_core.runtime.job import job

with job(snakemake, network=True):
    from types import SimpleNamespace

    from steering_core.config.model import Model
    from steering_core.corrsteer.read_items import fetch_items
    from steering_core.corrsteer.tasks import find_task
    from steering_core.early_checks import check_items
    from steering_core.hub.errors import retry_while_unavailable
    from steering_core.models.fetch import describe, describe_classifier, download
    from steering_core.storage.files import write_json
    from steering_core.storage.parquet import write_parquet

    settings = SimpleNamespace(**snakemake.params.settings)
    entry = SimpleNamespace(**snakemake.params.task)
    model, task = Model(**snakemake.params.model), find_task(entry.task)
    judge = task.success
    # Cheap checks first, to find mistakes before downloading gigabytes of weights.
    found = retry_while_unavailable(
        lambda: {
            **describe(
                model,
                layers=settings.layers,
                first_layer=1,  # as published
                max_tokens=settings.max_tokens,
                new_tokens=settings.new_tokens or task.length(reasoned=settings.chain_of_thought),
                texts_are_continued=True,
                device=snakemake.params.device,
            ),
            "classifier": judge.classifier and describe_classifier(judge.classifier),
        }
    )
    items, dataset = retry_while_unavailable(
        lambda: fetch_items(entry, published_prompt=settings.published_prompt)
    )
    examples = SimpleNamespace(**snakemake.params.examples)
    check_items(items, entry, examples, model, found, snakemake.params.seeds[0])
    parameters = retry_while_unavailable(
        lambda: download(
            model,
            found,
            found["layers"],
            check_classifier=lambda: judge.load(found["classifier"]["revision"], "cpu"),
        )
    )
    write_parquet(snakemake.output.rows, items)
    resources = {**found, "dataset": dataset, "parameters": parameters}
    write_json(snakemake.output.resources, resources)
