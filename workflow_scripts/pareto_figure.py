"""Draw effect against cost, with the Pareto frontier."""

from steering_core.runtime.job import job

with job(snakemake):
    import pandas as pd

    from steering_core.tables.charts import save_chart
    from steering_core.tables.pareto_figure import pareto_figure

    save_chart(pareto_figure(pd.read_csv(snakemake.input.pareto)), snakemake.output.figure)
