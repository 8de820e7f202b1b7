"""Answer a shard of the training rows and accumulate every layer's activations."""

from steering_core.job import job

with job(snakemake):
    from steering_core.config.model import Model
    from steering_core.config.view import SettingsView
    from steering_core.corrsteer.examples import read_examples
    from steering_core.corrsteer.run import open_run
    from steering_core.corrsteer.selection import make_readers, select
    from steering_core.corrsteer.variant import Variant
    from steering_core.models.feature_encoder import load_encoder
    from steering_core.models.pins import pinned_sae
    from steering_core.storage.arrays import save_arrays
    from steering_core.storage.atomic import atomic_path, write_text
    from steering_core.storage.json import read_json

    given = SettingsView(snakemake.params.settings)
    resources = read_json(snakemake.input.resources)
    run = open_run(snakemake.params.model, snakemake.params.task, given, resources)
    variants = [Variant.parse(text) for text in snakemake.params.variants]
    source = pinned_sae(Model(**snakemake.params.model), resources)
    encoders = {}
    if any(variant.space == "features" for variant in variants):
        encoders = {layer: load_encoder(source, layer, run.lm.device) for layer in run.sites}
    rows = read_examples(snakemake.input.examples, "train")
    shard, shards = int(snakemake.wildcards.shard), given.shards
    first, last = (len(rows) * i // shards for i in (shard, shard + 1))
    selected = select(
        run.lm,
        rows.iloc[first:last].reset_index(drop=True),
        run.task,
        run.how,
        run.classifier,
        make_readers(encoders, run.sites, variants, run.lm.shape.d_model),
        variants,
        histograms=[Variant.parse(text) for text in snakemake.params.histograms],
        snapshots=given.snapshots,
        reasoned=run.reasoned,
    )
    save_arrays(snakemake.output.selection, selected.accumulators.to_arrays())
    with atomic_path(snakemake.output.answers) as temporary:
        selected.answers.to_parquet(temporary, index=False, compression="zstd")
    write_text(snakemake.output.snapshots, selected.snapshots.to_csv(index=False))
