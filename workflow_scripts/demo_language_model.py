"""Train the demo's language model."""

from steering_core.runtime.job import job

with job(snakemake):
    from steering_core.demo.language_model import train_language_model

    world = snakemake.params.world
    train_language_model(
        snakemake.input.corpus,
        snakemake.output.model,
        d_model=world["d_model"],
        n_layers=world["n_layers"],
        n_steps=world["training_steps"],
        seed=world["seed"],
    )
