"""Download the SAE of every cached layer, which only the layer sweep needs."""

from steering_core.job import job

with job(snakemake):
    from steering_core.config.schema import SAESource
    from steering_core.models.sparse_autoencoder import load_sae
    from steering_core.progress import progress
    from steering_core.storage.atomic import write_json
    from steering_core.storage.json import read_json

    source = SAESource(**snakemake.params.model["sae"])
    resources = read_json(snakemake.input.resources)
    for layer in progress(resources["layers"], "fetching SAEs"):
        load_sae(source, layer)
    write_json(snakemake.output.resources, resources)
