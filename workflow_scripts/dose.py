"""Put effect and cost of every strength over the size of what it adds."""

from steering_core.runtime.job import job

with job(snakemake):
    import pandas as pd

    from steering_core.config.methods import BASELINE
    from steering_core.methods.base import read_direction
    from steering_core.methods.solutions import TEXT_KEY
    from steering_core.storage.files import write_text
    from steering_core.tables.charts import save_chart
    from steering_core.tables.dose import dose_figure, dose_table, with_repetition
    from steering_core.tables.measured import gather

    files, params = snakemake.input, snakemake.params
    measured = gather(
        pd.read_parquet([*files.solutions]),
        pd.read_parquet(files.effects),
        [pd.read_parquet(path) for path in files.divergence],
        pd.read_parquet(files.judged),
    )
    columns = [*TEXT_KEY, "new_tokens"]
    generations = pd.concat(pd.read_parquet(path, columns=columns) for path in files.generations)
    _, unit = read_direction(files.directions, BASELINE)
    settings = dict(params.settings)
    table = dose_table(
        snakemake.wildcards.experiment,
        measured,
        with_repetition(measured, generations),
        unit,
        target_class=params.target_class,
        n_resamples=settings.pop("bootstrap_resamples"),
        **settings,
    )
    write_text(snakemake.output.table, table.to_csv(index=False))
    save_chart(dose_figure(table), snakemake.output.figure)
