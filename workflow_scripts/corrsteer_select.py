"""Answer a shard of the training rows and accumulate every layer's activations."""

from steering_core.runtime.job import job

with job(snakemake):
    from types import SimpleNamespace

    from steering_core.config.model import Model
    from steering_core.corrsteer.answers import open_session
    from steering_core.corrsteer.examples import read_examples
    from steering_core.corrsteer.selection import select_shard
    from steering_core.models.residual_stream import check_blocks
    from steering_core.storage.arrays import save_arrays
    from steering_core.storage.files import read_json, write_text
    from steering_core.storage.parquet import write_parquet

    settings = SimpleNamespace(**snakemake.params.settings)
    resources = read_json(snakemake.input.resources)
    session = open_session(snakemake.params.model, snakemake.params.task, settings, resources)
    check_blocks(session.lm)  # fail now, not after hours of answers
    selected = select_shard(
        session,
        read_examples(snakemake.input.examples, "train"),
        Model(**snakemake.params.model),
        resources,
        settings,
        statistics=snakemake.params.statistics,
        histograms=snakemake.params.histograms,
        shard=int(snakemake.wildcards.shard),
    )
    save_arrays(snakemake.output.selection, selected.accumulators.to_arrays())
    write_parquet(snakemake.output.answers, selected.answers)
    write_text(snakemake.output.snapshots, selected.snapshots.to_csv(index=False))
