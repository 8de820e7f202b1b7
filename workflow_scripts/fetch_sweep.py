"""Download the SAE of every cached layer. Only the layer sweep needs them."""

from steering_core.runtime.job import job

with job(snakemake, network=True):
    from functools import partial

    from steering_core.config.model import Model
    from steering_core.hub.errors import retry_while_unavailable
    from steering_core.models.sae_source import pinned_sae
    from steering_core.models.sparse_autoencoder import load_sae
    from steering_core.progress import progress
    from steering_core.storage.files import read_json, write_json

    model = Model(**snakemake.params.model)
    resources = read_json(snakemake.input.resources)
    for layer in progress(resources["layers"], "fetching SAEs"):
        retry_while_unavailable(partial(load_sae, model.sae, layer))
    pinned_sae(model, resources)  # all from the same commit
    write_json(snakemake.output.resources, resources)
