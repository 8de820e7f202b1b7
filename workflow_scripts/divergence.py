"""KL and base-model surprise of the texts of one method."""

from steering_core.job import job

with job(snakemake):
    from steering_core.models.hub import work_offline

    work_offline()
    import pandas as pd

    from steering_core.config.schema import Model
    from steering_core.methods.solutions import read_interventions
    from steering_core.metrics.texts import text_divergence
    from steering_core.models.fetch import pinned_model, site_at
    from steering_core.models.language_model import load_language_model
    from steering_core.storage.atomic import atomic_path
    from steering_core.storage.json import read_json

    given = snakemake.params.settings
    model = pinned_model(Model(**snakemake.params.model), read_json(snakemake.input.resources))
    rows = text_divergence(
        load_language_model(model, given["device"]),
        pd.read_parquet(snakemake.input.generations),
        read_interventions(
            snakemake.wildcards.method,
            snakemake.input.solutions,
            snakemake.input.directions,
            snakemake.input.path,
        ),
        site_at(read_json(snakemake.input.layer)),
        positions=given["positions"],
        batch_tokens=given["batch_tokens"],
    )
    with atomic_path(snakemake.output.divergence) as temporary:
        rows.to_parquet(temporary, index=False, compression="zstd")
