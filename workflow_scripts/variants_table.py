"""Aggregate the variants of the programs into variants.csv, and draw them."""

from steering_core.runtime.job import job

with job(snakemake):
    from types import SimpleNamespace

    import pandas as pd

    from steering_core.storage.files import read_json, write_text
    from steering_core.tables.caveats import probe_warnings
    from steering_core.tables.charts import save_chart
    from steering_core.tables.variants import variant_figure, variant_table

    settings = SimpleNamespace(**snakemake.params.settings)
    table = variant_table(
        pd.read_parquet(snakemake.input.solutions),
        snakemake.wildcards.experiment,
        seed=settings.seed,
        n_resamples=settings.bootstrap_resamples,
        warnings=probe_warnings(read_json(snakemake.input.probes)),
    )
    write_text(snakemake.output.table, table.to_csv(index=False))
    save_chart(variant_figure(table), snakemake.output.figure)
