"""Draw effect against cost, with the Pareto frontier: a picture, and a page to explore."""

from steering_core.runtime.job import job

with job(snakemake):
    import pandas as pd

    from steering_core.tables.charts import save_chart
    from steering_core.tables.pareto_figure import pareto_figure

    table = pd.read_csv(snakemake.input.pareto)
    save_chart(pareto_figure(table), snakemake.output.figure)
    save_chart(pareto_figure(table, interactive=True), snakemake.output.page)
