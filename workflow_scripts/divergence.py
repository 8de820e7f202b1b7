"""Compute KL and base-model surprise of the texts of one method."""

from steering_core.runtime.job import job

with job(snakemake):
    import pandas as pd

    from steering_core.generation.steered_method import read_steered_method
    from steering_core.metrics.divergence import text_divergence
    from steering_core.models.resources import fetched_model, site_at
    from steering_core.storage.files import read_json
    from steering_core.storage.parquet import write_parquet

    files, settings = snakemake.input, snakemake.params.settings
    lm = fetched_model(snakemake.params.model, read_json(files.resources), settings["device"])
    rows = text_divergence(
        lm,
        pd.read_parquet(files.generations),
        read_steered_method(
            snakemake.wildcards.method,
            dict(files.items()),
            site_at(read_json(files.layer)),
            positions=settings["positions"],
            target_class=snakemake.params.target_class,
            device=lm.device,
        ),
        batch_tokens=settings["batch_tokens"],
    )
    write_parquet(snakemake.output.divergence, rows)
