"""Average the ratings of each method over the concepts of a set, beside the published scores."""

from steering_core.runtime.job import job

with job(snakemake):
    import pandas as pd

    from steering_core.storage.files import write_text
    from steering_core.tables.ratings import axbench_table

    files, params = snakemake.input, snakemake.params
    table = axbench_table(
        snakemake.wildcards.concept_set,
        {
            name: pd.read_parquet(path)
            for name, path in zip(params.experiments, files.ratings, strict=True)
        },
        pd.read_csv(files.published),
        seed=params.settings["seed"],
        n_resamples=params.settings["bootstrap_resamples"],
    )
    write_text(snakemake.output.table, table.to_csv(index=False))
