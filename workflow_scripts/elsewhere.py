"""Compare what each method does elsewhere with no steering, and draw it against its effect."""

from steering_core.runtime.job import job

with job(snakemake):
    import pandas as pd

    from steering_core.storage.files import write_text
    from steering_core.tables.charts import save_chart
    from steering_core.tables.elsewhere import elsewhere_figure, elsewhere_table

    files, params = snakemake.input, snakemake.params
    found = {
        (probe, method): rows.reset_index(drop=True)
        for probe, path in zip(params.probes, files.probes, strict=True)
        for method, rows in pd.read_parquet(path).groupby("method", sort=False)
    }
    table = elsewhere_table(
        snakemake.wildcards.experiment,
        pd.read_csv(files.summary),
        found,
        seed=params.settings["seed"],
        n_resamples=params.settings["bootstrap_resamples"],
        unguarded=params.unguarded,
    )
    write_text(snakemake.output.table, table.to_csv(index=False))
    save_chart(elsewhere_figure(table), snakemake.output.figure)
