"""Pin, download and check the model, SAEs, dataset and judge of an experiment."""

from steering_core.runtime.job import job

with job(snakemake, network=True):
    from types import SimpleNamespace

    from steering_core.config.model import Model
    from steering_core.config.task import Task
    from steering_core.data.labelled import fetch_labelled
    from steering_core.early_checks import check_effect_layers, check_examples, check_lexicon
    from steering_core.hub.errors import retry_while_unavailable
    from steering_core.models.fetch import describe, describe_judge, download
    from steering_core.storage.files import write_json
    from steering_core.storage.parquet import write_parquet

    task, model = Task(**snakemake.params.task), Model(**snakemake.params.model)
    settings = SimpleNamespace(**snakemake.params.settings)
    examples = SimpleNamespace(**snakemake.params.examples)
    steered = settings.layer if isinstance(settings.layer, int) else None
    # Cheap checks first, to find a wrong column, too few rows or a text that is too long before
    # downloading gigabytes of weights. The table made here is not kept: it depends on the fractions
    # of the splits, and then another fraction would repeat the download. The stage of the examples
    # makes it again, with the same function.
    check_lexicon(task)
    found = retry_while_unavailable(
        lambda: {
            **describe(
                model,
                layers=settings.layers,
                steered_layer=steered,
                max_tokens=settings.max_tokens,
                new_tokens=examples.new_tokens,
                device=snakemake.params.device,
            ),
            "classifier": describe_judge(task.classifier),
            "further_judges": [describe_judge(judge) for judge in task.further_judges],
        }
    )
    rows, dataset = retry_while_unavailable(lambda: fetch_labelled(task))
    check_examples(rows, task, snakemake.input.concept, examples, model, found)
    # With `layer: auto`, the layer sweep downloads every SAE.
    layers = [] if steered is None else [steered]
    if settings.layer == "effect":
        check_effect_layers(settings.effect_layers, found["layers"])
        layers = settings.effect_layers
    parameters = retry_while_unavailable(lambda: download(model, found, layers))
    write_parquet(snakemake.output.dataset, rows)
    resources = {**found, "dataset": dataset, "parameters": parameters}
    write_json(snakemake.output.resources, resources)
