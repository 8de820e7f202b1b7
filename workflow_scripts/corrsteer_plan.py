"""Choose the features of one arm, and compute its coefficients and vectors."""

from steering_core.runtime.job import job

with job(snakemake):
    from types import SimpleNamespace

    from steering_core.config.model import Model
    from steering_core.corrsteer.accumulate import Accumulators
    from steering_core.corrsteer.plan import make_plan
    from steering_core.corrsteer.tasks import find_task
    from steering_core.models.resources import run_sites
    from steering_core.models.sae_source import pinned_sae
    from steering_core.models.sparse_autoencoder import decoder_rows
    from steering_core.storage.arrays import load_arrays
    from steering_core.storage.files import read_json, write_text
    from steering_core.tables.columns import validate_table

    settings = SimpleNamespace(**snakemake.params.settings)
    resources = read_json(snakemake.input.resources)
    plan = make_plan(
        SimpleNamespace(**snakemake.params.arm),
        Accumulators.from_arrays(load_arrays(snakemake.input.selection)[0]),
        run_sites(resources, published=settings.published_site),
        decoder_rows(pinned_sae(Model(**snakemake.params.model), resources)),
        task_pooling=find_task(snakemake.params.task["task"]).pooling,
        keep=settings.keep,
        seed=int(snakemake.wildcards.seed),
        min_outcomes=settings.min_outcomes,
        missing={layer: "no SAE" for layer in resources["layers_without_sae"]},
    )
    plan.save(snakemake.output.plan)
    table = plan.table()
    validate_table(table, "plans/{arm}")
    write_text(snakemake.output.features, table.to_csv(index=False))
