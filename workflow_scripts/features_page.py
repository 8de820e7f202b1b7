"""The features that correlate most and those the QP uses most, with links."""

from steering_core.job import job

with job(snakemake):
    from steering_core.models.hub import work_offline

    work_offline()
    import pandas as pd

    from steering_core.config.schema import Model
    from steering_core.methods.solutions import coefficient_share
    from steering_core.models.pins import pinned_sae
    from steering_core.models.sparse_autoencoder import load_sae
    from steering_core.optimize.path import SteeringPath
    from steering_core.probes.linear_probe import LinearProbe
    from steering_core.statistics.correlation import StreamingCorrelation
    from steering_core.storage.arrays import load_arrays
    from steering_core.storage.atomic import write_text
    from steering_core.storage.json import read_json
    from steering_core.tables.features import feature_table
    from steering_core.tables.pages import features_page

    resources = read_json(snakemake.input.resources)
    source = pinned_sae(Model(**snakemake.params.model), resources)
    files = snakemake.input
    site = read_json(files.layer)
    solutions = pd.read_parquet(files.solutions, filters=[("split", "==", "test")])
    table = feature_table(
        StreamingCorrelation.from_arrays(load_arrays(files.correlation)[0]).result(),
        LinearProbe.load(files.probe).oriented(snakemake.params.target_class),
        load_sae(source, site["layer"]).decoder,
        coefficient_share(solutions, SteeringPath.load(files.path)),
        site["neuronpedia_id"],
    )
    write_text(snakemake.output.table, table.to_csv(index=False))
    name = snakemake.wildcards.experiment
    write_text(snakemake.output.page, features_page(table, f"{name}: top features"))
