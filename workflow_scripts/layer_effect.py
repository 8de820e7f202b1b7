"""Compare the layers that were tried where they have the same effect."""

from steering_core.runtime.job import job

with job(snakemake):
    import pandas as pd

    from steering_core.config.task import Task
    from steering_core.storage.files import write_text
    from steering_core.tables.charts import save_chart
    from steering_core.tables.layer_effect import layer_effect_table
    from steering_core.tables.layer_effect_figure import layer_effect_figure

    task, settings = Task(**snakemake.params.task), snakemake.params.settings
    effect = settings["matched_effect"]
    table = layer_effect_table(
        pd.concat([pd.read_parquet(path) for path in snakemake.input.trials]),
        snakemake.wildcards.experiment,
        judge=task.judge_names[0],
        target_class=task.target_class,
        effect=None if effect == "half" else effect,
        budget=settings["selection_kl"],
        seed=settings["seed"],
        n_resamples=settings["bootstrap_resamples"],
    )
    write_text(snakemake.output.table, table.to_csv(index=False))
    save_chart(layer_effect_figure(table), snakemake.output.figure)
