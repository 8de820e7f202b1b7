"""One shard of the activation cache."""

from steering_core.runtime.job import job

with job(snakemake):
    from steering_core.activations.cache import cache_activations
    from steering_core.activations.manifest import origin
    from steering_core.data.examples import read_examples
    from steering_core.models.head import check_head
    from steering_core.models.residual_stream import check_blocks
    from steering_core.models.resources import cached_sites, fetched_model
    from steering_core.storage.files import read_json

    given = snakemake.params.settings
    resources = read_json(snakemake.input.resources)
    lm = fetched_model(snakemake.params.model, resources, given["device"])
    check_blocks(lm)
    check_head(lm)  # the divergence needs it, hours from here
    cache_activations(
        lm,
        read_examples(snakemake.input.examples),
        cached_sites(resources),
        snakemake.output.part,
        max_tokens=given["max_tokens"],
        batch_tokens=given["batch_tokens"],
        shard=int(snakemake.wildcards.shard),
        shards=given["shards"],
        positions=given["cached_positions"],
        metadata=origin(
            resources, snakemake.input.examples, given["max_tokens"], given["cached_positions"]
        ),
    )
