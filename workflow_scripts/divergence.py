"""Compute KL and base-model surprise of the texts of all methods of a job."""

from steering_core.runtime.job import job

with job(snakemake):
    from pathlib import Path

    from steering_core.generation.by_method import SteeredMethods, rows_of
    from steering_core.metrics.divergence import text_divergence
    from steering_core.storage.files import read_json
    from steering_core.storage.parquet import table_digest, write_parquet

    files, settings = snakemake.input, snakemake.params.settings
    methods = SteeredMethods(snakemake.params, read_json(files.resources), read_json(files.layer))

    def texts_of(method):
        return rows_of(method, files.generations)

    divergence = methods.tables(
        Path(snakemake.output.divergence).parent / "methods",
        lambda method: text_divergence(
            methods.lm,
            texts_of(method).to_pandas(),
            methods.steered(method),
            batch_tokens=settings["batch_tokens"],
        ),
        lambda method: {"texts": table_digest(texts_of(method))},
    )
    write_parquet(snakemake.output.divergence, divergence)
