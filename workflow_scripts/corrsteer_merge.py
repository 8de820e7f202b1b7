"""Merge the shards of a selection, and record the best features after every shard."""

from steering_core.runtime.job import job

with job(snakemake):
    import pandas as pd

    from steering_core.corrsteer.accumulate import Accumulators
    from steering_core.corrsteer.scores import snapshot
    from steering_core.storage.arrays import load_arrays, save_arrays
    from steering_core.storage.files import write_text
    from steering_core.storage.parquet import write_parquet
    from steering_core.tables.columns import validate_table

    # The snapshots within the first shard are also those of the whole run.
    noted = [pd.read_csv(snakemake.input.snapshots[0], dtype={"feature": "Int64"})]
    merged = None
    for path in snakemake.input.selections:
        shard = Accumulators.from_arrays(load_arrays(path)[0])
        if merged is None:
            merged = shard
        else:
            merged.merge(shard)
            noted.append(snapshot(merged))
    save_arrays(snakemake.output.selection, merged.to_arrays())
    answers = pd.concat([pd.read_parquet(path) for path in snakemake.input.answers])
    write_parquet(snakemake.output.answers, answers)
    convergence = pd.concat(noted, ignore_index=True)
    convergence = convergence.drop_duplicates(["n", "layer", "pooled_statistic"])  # an empty shard
    validate_table(convergence, "convergence")
    write_text(snakemake.output.convergence, convergence.to_csv(index=False))
