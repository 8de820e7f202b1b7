"""Rate every completion of an experiment for its concept, its instruction and how it reads."""

from steering_core.runtime.job import job

with job(snakemake):
    import pandas as pd

    from steering_core.config.task import Classifier
    from steering_core.methods.solutions import TEXT_KEY
    from steering_core.metrics.judging import ANSWERS, rate_completions, rating_endpoint
    from steering_core.storage.parquet import write_parquet

    columns = [*TEXT_KEY, "strength_name", "strength", "prompt", "text"]
    ratings = rate_completions(
        pd.concat(
            [pd.read_parquet(path, columns=columns) for path in snakemake.input.generations]
        ).reset_index(drop=True),
        pd.read_parquet([*snakemake.input.solutions]),
        rating_endpoint([Classifier(**judge) for judge in snakemake.params.judges]),
        ANSWERS,
        target_class=snakemake.params.target_class,
    )
    write_parquet(snakemake.output.ratings, ratings)
