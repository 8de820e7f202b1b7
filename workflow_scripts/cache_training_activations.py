"""Cache the activations that SAEs are trained and measured on, of all layers in one pass."""

from steering_core.runtime.job import job

with job(snakemake):
    from steering_core.activations.cache import cache_activations
    from steering_core.activations.manifest import expected_rows, origin, write_manifest
    from steering_core.data.examples import read_examples
    from steering_core.models.residual_stream import check_blocks
    from steering_core.models.resources import cached_sites, fetched_model
    from steering_core.storage.files import read_json
    from steering_core.training.texts import with_sites

    training, files = snakemake.params.training, snakemake.input
    resources = with_sites(read_json(files.resources), training["layers"])
    lm = fetched_model(snakemake.params.model, resources, snakemake.params.device)
    check_blocks(lm)
    made_from = origin(resources, files.texts, training["max_tokens"], "all")
    cache_activations(
        lm,
        read_examples(files.texts),
        cached_sites(resources),
        snakemake.output.part,
        max_tokens=training["max_tokens"],
        batch_tokens=training["batch_tokens"],
        positions="all",
        metadata=made_from,
    )
    write_manifest(
        [snakemake.output.part],
        snakemake.output.manifest,
        expected_rows(files.texts, "all"),
        made_from,
    )
