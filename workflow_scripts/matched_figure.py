"""Draw what each method costs where all have the same effect."""

from steering_core.runtime.job import job

with job(snakemake):
    import pandas as pd

    from steering_core.tables.charts import save_chart
    from steering_core.tables.matched_figure import matched_figure

    tables = [pd.read_csv(path) for path in (snakemake.input.matched, snakemake.input.curves)]
    save_chart(matched_figure(*tables), snakemake.output.figure)
