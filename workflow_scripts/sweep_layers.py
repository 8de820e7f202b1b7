"""Probe accuracy and SAE alignment of every cached layer, from training rows alone."""

from steering_core.job import job

with job(snakemake):
    import pandas as pd

    from steering_core.activations.reader import ActivationCache
    from steering_core.config.model import Model
    from steering_core.data.examples import read_examples
    from steering_core.models.pins import pinned_sae
    from steering_core.models.resources import site_at
    from steering_core.models.sparse_autoencoder import load_sae
    from steering_core.probes.layer_sweep import pick_layer, sweep_layer
    from steering_core.progress import progress
    from steering_core.storage.atomic import write_text
    from steering_core.storage.json import read_json
    from steering_core.tables.column import validate_table
    from steering_core.tables.sweep_columns import SWEEP_COLUMNS

    given = snakemake.params.settings
    resources = read_json(snakemake.input.resources)
    source = pinned_sae(Model(**snakemake.params.model), resources)
    train = read_examples(snakemake.input.examples, ["train"])
    cache = ActivationCache(snakemake.input.manifest, resources, snakemake.input.examples)
    rows = []
    for sae in progress(resources["saes"], "sweeping layers"):
        site = site_at(sae)
        rows.append(
            sweep_layer(
                cache.matrix(site.hook_name, train["example_id"]),
                train["label"].to_numpy(dtype=int),
                load_sae(source, site.layer).decoder,
                layer=site.layer,
                seed=given["seed"],
                groups=train["group"].to_numpy(),
                regularisations=given["probe_regularisation"],
                n_folds=given["probe_folds"],
                centred=site.centred,
            )
        )
    sweep = pd.DataFrame(rows).drop(columns="fold_scores")
    sweep.insert(0, "experiment", snakemake.wildcards.experiment)
    sweep["picked"] = sweep["layer"] == pick_layer(sweep)
    validate_table(sweep, "sweep", SWEEP_COLUMNS, ("layer",))
    write_text(snakemake.output.sweep, sweep.to_csv(index=False))
