"""Make the table and page of the features that correlate most and that the QP uses most."""

from steering_core.runtime.job import job

with job(snakemake):
    import pandas as pd

    from steering_core.methods.solution_vectors import coefficient_share
    from steering_core.optimize.path import SteeringPath
    from steering_core.probes.linear_probe import LinearProbe
    from steering_core.statistics.correlation import StreamingCorrelation
    from steering_core.storage.arrays import load_arrays, load_decoder
    from steering_core.storage.files import read_json, write_text
    from steering_core.tables.caveats import probe_warnings
    from steering_core.tables.features import feature_table, features_page

    files = snakemake.input
    site, name = read_json(files.layer), snakemake.wildcards.experiment
    solutions = pd.read_parquet([*files.solutions], filters=[("split", "==", "test")])
    table = feature_table(
        StreamingCorrelation.from_arrays(load_arrays(files.correlation)[0]).result(),
        LinearProbe.load(files.probe).oriented(snakemake.params.target_class),
        load_decoder(files.decoder),
        coefficient_share(solutions, SteeringPath.load_deepest(files.paths)),
        site["neuronpedia_id"],
        name,
    )
    write_text(snakemake.output.table, table.to_csv(index=False))
    warnings = probe_warnings(read_json(files.probes))
    write_text(snakemake.output.page, features_page(table, f"{name}: top features", warnings))
