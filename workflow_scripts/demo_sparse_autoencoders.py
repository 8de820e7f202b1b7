"""Train an SAE for every layer of the demo's language model."""

from steering_core.runtime.job import job

with job(snakemake):
    from steering_core.demo.sparse_autoencoder import train_saes

    world = snakemake.params.world
    train_saes(
        snakemake.input.model,
        snakemake.input.corpus,
        snakemake.output.saes,
        layers=range(world["n_layers"]),
        d_sae=world["d_sae"],
        n_samples=world["sae_samples"],
        seed=world["seed"],
    )
