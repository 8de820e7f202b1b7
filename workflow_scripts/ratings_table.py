"""Average the ratings of each method and strength over prompts."""

from steering_core.runtime.job import job

with job(snakemake):
    import pandas as pd

    from steering_core.storage.files import write_text
    from steering_core.tables.ratings import ratings_table

    table = ratings_table(
        snakemake.wildcards.experiment,
        pd.read_parquet(snakemake.input.ratings),
        seed=snakemake.params.settings["seed"],
        n_resamples=snakemake.params.settings["bootstrap_resamples"],
    )
    write_text(snakemake.output.table, table.to_csv(index=False))
