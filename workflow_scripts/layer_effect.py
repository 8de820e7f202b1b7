"""Compare the layers that were tried where they have the same effect."""

from steering_core.runtime.job import job

with job(snakemake):
    import pandas as pd

    from steering_core.config.task import Task
    from steering_core.storage.files import write_text
    from steering_core.tables.charts import save_chart
    from steering_core.tables.layer_choice import layer_effect_figure, layer_effect_table
    from steering_core.tables.matched import Matching

    table = layer_effect_table(
        pd.concat([pd.read_parquet(path) for path in snakemake.input.trials]),
        snakemake.wildcards.experiment,
        Matching.of(Task(**snakemake.params.task), snakemake.params.settings),
    )
    write_text(snakemake.output.table, table.to_csv(index=False))
    save_chart(layer_effect_figure(table), snakemake.output.figure)
