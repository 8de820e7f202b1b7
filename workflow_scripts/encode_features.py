"""Encode the cached residuals at the chosen layer as SAE features."""

from steering_core.runtime.job import job

with job(snakemake):
    from steering_core.activations.features import encode_features
    from steering_core.activations.reader import ActivationCache
    from steering_core.config.model import Model
    from steering_core.models.devices import choose_device
    from steering_core.models.sae_source import pinned_sae
    from steering_core.models.sparse_autoencoder import load_sae
    from steering_core.storage.arrays import save_decoder
    from steering_core.storage.files import read_json

    resources = read_json(snakemake.input.resources)
    source = pinned_sae(Model(**snakemake.params.model), resources)
    device = choose_device(snakemake.params.settings["device"])
    layer = read_json(snakemake.input.layer)["layer"]
    dictionary = load_sae(source, layer, device)
    save_decoder(snakemake.output.decoder, dictionary.decoder, dictionary.description)
    encode_features(
        ActivationCache(snakemake.input.manifest, resources, snakemake.input.examples),
        dictionary,
        snakemake.output.features,
    )
