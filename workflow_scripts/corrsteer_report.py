"""Results of an experiment over its seeds, and what steering changed."""

from steering_core.job import job

with job(snakemake):
    import pandas as pd

    from steering_core.corrsteer.changes_page import changes_page
    from steering_core.corrsteer.report import paired, result_table
    from steering_core.storage.atomic import write_text

    runs = {}
    names = [(seed, arm) for seed in snakemake.params.seeds for arm in snakemake.params.arms]
    for (seed, arm), path in zip(names, snakemake.input.answers, strict=True):
        runs.setdefault(seed, {})[arm] = pd.read_parquet(path)
    name = snakemake.wildcards.run
    table = result_table(name, runs, n_resamples=snakemake.params.settings["bootstrap_resamples"])
    write_text(snakemake.output.table, table.to_csv(index=False))
    seed = snakemake.params.seeds[0]
    first = runs[seed]
    pairs = {arm: paired(first["unsteered"], rows) for arm, rows in first.items()}
    write_text(
        snakemake.output.page, changes_page(f"{name}: what steering changed, seed {seed}", pairs)
    )
