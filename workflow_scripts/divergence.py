"""KL and base-model surprise of the texts of one method."""

from steering_core.runtime.job import job

with job(snakemake):
    import pandas as pd

    from steering_core.generation.plan import load_solver
    from steering_core.methods.interventions import read_interventions
    from steering_core.metrics.divergence import text_divergence
    from steering_core.models.resources import fetched_model, site_at
    from steering_core.storage.files import read_json
    from steering_core.storage.parquet import write_parquet

    files, settings = snakemake.input, snakemake.params.settings
    method = snakemake.wildcards.method
    resources = read_json(files.resources)
    lm = fetched_model(snakemake.params.model, resources, settings["device"])
    site = site_at(read_json(files.layer))
    rows = text_divergence(
        lm,
        pd.read_parquet(files.generations),
        read_interventions(
            method,
            files.solutions,
            files.get("directions"),
            files.get("path"),
        ),
        site,
        positions=settings["positions"],
        batch_tokens=settings["batch_tokens"],
        solver=load_solver(
            method,
            files.get("path"),
            files.get("probe"),
            snakemake.params.target_class,
            files.get("decoder"),
            site,
            lm.device,
        ),
    )
    write_parquet(snakemake.output.divergence, rows)
