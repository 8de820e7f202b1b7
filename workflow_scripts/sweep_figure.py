"""Draw the layer sweep."""

from steering_core.runtime.job import job

with job(snakemake):
    import pandas as pd

    from steering_core.storage.files import read_json
    from steering_core.tables.charts import save_chart
    from steering_core.tables.layer_choice import sweep_figure

    used = read_json(snakemake.input.layer)["layer"]
    save_chart(sweep_figure(pd.read_csv(snakemake.input.sweep), used), snakemake.output.figure)
