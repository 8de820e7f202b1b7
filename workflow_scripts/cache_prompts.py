"""Cache the residuals at the last token of the prompts, from which their programs are solved."""

from steering_core.runtime.job import job

with job(snakemake):
    from steering_core.activations.cache import cache_activations
    from steering_core.activations.manifest import origin, write_manifest
    from steering_core.data.examples import read_examples
    from steering_core.models.resources import cached_sites, fetched_model
    from steering_core.models.tokens import uses_chat_template
    from steering_core.storage.files import read_json

    files, settings = snakemake.input, snakemake.params.settings
    resources = read_json(files.resources)
    prompts = read_examples(files.prompts)
    metadata = origin(resources, files.prompts, settings["max_tokens"], "last")
    lm = fetched_model(snakemake.params.model, resources, settings["device"])
    cache_activations(
        lm,
        prompts,
        cached_sites(resources),
        snakemake.output.part,
        max_tokens=settings["max_tokens"],
        batch_tokens=settings["batch_tokens"],
        chat_template=uses_chat_template(settings["chat_template"], lm.tokenizer),
        metadata=metadata,
    )
    write_manifest([snakemake.output.part], snakemake.output.manifest, len(prompts), metadata)
