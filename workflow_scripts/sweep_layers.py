"""Measure probe accuracy and SAE alignment of every cached layer, on training rows alone."""

from steering_core.runtime.job import job

with job(snakemake):
    from types import SimpleNamespace

    from steering_core.activations.reader import ActivationCache
    from steering_core.config.model import Model
    from steering_core.data.examples import read_examples
    from steering_core.models.sae_source import pinned_sae
    from steering_core.models.sparse_autoencoder import load_sae
    from steering_core.probes.layer_sweep import sweep_table
    from steering_core.storage.files import read_json, write_text
    from steering_core.tables.columns import validate_table

    files = snakemake.input
    resources = read_json(files.resources)
    source = pinned_sae(Model(**snakemake.params.model), resources)
    sweep = sweep_table(
        resources["saes"],
        read_examples(files.examples, ["train"]),
        ActivationCache(files.manifest, resources, files.examples).matrix,
        lambda layer: load_sae(source, layer).decoder,
        snakemake.wildcards.experiment,
        SimpleNamespace(**snakemake.params.settings),
    )
    validate_table(sweep, "sweep")
    write_text(snakemake.output.sweep, sweep.to_csv(index=False))
