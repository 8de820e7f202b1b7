"""Draw the comparison of programs with fixed directions at equal norm."""

from steering_core.runtime.job import job

with job(snakemake):
    import pandas as pd

    from steering_core.tables.charts import save_chart
    from steering_core.tables.norm_matched import norm_matched_figure

    tables = [pd.read_csv(path) for path in (snakemake.input.table, snakemake.input.pareto)]
    save_chart(norm_matched_figure(*tables), snakemake.output.figure)
