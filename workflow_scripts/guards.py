"""Make the table of what guards of declared programs cost and save."""

from steering_core.runtime.job import job

with job(snakemake):
    import pandas as pd

    from steering_core.data.examples import read_examples
    from steering_core.methods.solutions import TEXT_KEY
    from steering_core.storage.files import write_text
    from steering_core.tables.guards import guard_table

    files, settings = snakemake.input, snakemake.params.settings
    texts = pd.concat([pd.read_parquet(path) for path in files.divergence])
    judged = pd.read_parquet(files.judged)
    rows = [pd.read_parquet(path) for path in files.guards]
    table = guard_table(
        snakemake.wildcards.experiment,
        pd.concat(rows) if rows else None,
        texts.merge(judged, on=[*TEXT_KEY], validate="one_to_one"),
        snakemake.params.unguarded,
        read_examples(files.prompts, ["prompt"])["example_id"].tolist(),
        seed=settings["seed"],
        n_resamples=settings["bootstrap_resamples"],
    )
    write_text(snakemake.output.guards, table.to_csv(index=False))
