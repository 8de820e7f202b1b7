"""One shard of the activation cache."""

from steering_core.job import job

with job(snakemake):
    from steering_core.models.hub import work_offline

    work_offline()
    from steering_core.activations.cache import cache_activations
    from steering_core.activations.manifest import origin
    from steering_core.config.schema import Model
    from steering_core.data.examples import read_examples
    from steering_core.models.fetch import cached_sites
    from steering_core.models.language_model import load_language_model
    from steering_core.models.pins import pinned_model
    from steering_core.storage.json import read_json

    given = snakemake.params.settings
    resources = read_json(snakemake.input.resources)
    model = pinned_model(Model(**snakemake.params.model), resources)
    cache_activations(
        load_language_model(model, given["device"]),
        read_examples(snakemake.input.examples),
        cached_sites(resources),
        snakemake.output.part,
        max_tokens=given["max_tokens"],
        batch_tokens=given["batch_tokens"],
        shard=int(snakemake.wildcards.shard),
        shards=given["shards"],
        metadata=origin(resources),
    )
