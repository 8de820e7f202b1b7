"""Write one shard of the activation cache."""

from steering_core.runtime.job import job

with job(snakemake):
    from steering_core.activations.cache import cache_activations
    from steering_core.activations.manifest import origin
    from steering_core.data.examples import read_examples
    from steering_core.models.head import check_head
    from steering_core.models.residual_stream import check_blocks
    from steering_core.models.resources import cached_sites, fetched_model
    from steering_core.models.tokens import uses_chat_template
    from steering_core.storage.files import read_json

    settings = snakemake.params.settings
    resources = read_json(snakemake.input.resources)
    lm = fetched_model(snakemake.params.model, resources, settings["device"])
    check_blocks(lm)
    check_head(lm)  # fail now, not hours later in the divergence stage
    cache_activations(
        lm,
        read_examples(snakemake.input.examples),
        cached_sites(resources),
        snakemake.output.part,
        max_tokens=settings["max_tokens"],
        batch_tokens=settings["batch_tokens"],
        shard=int(snakemake.wildcards.shard),
        shards=settings["shards"],
        positions=settings["cached_positions"],
        chat_template=uses_chat_template(settings["chat_template"], lm.tokenizer),
        metadata=origin(
            resources,
            snakemake.input.examples,
            settings["max_tokens"],
            settings["cached_positions"],
        ),
    )
