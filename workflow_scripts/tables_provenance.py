"""Record everything that determines the tables over many experiments."""

from steering_core.runtime.job import job

with job(snakemake):
    from steering_core.runtime.provenance import provenance_of_tables
    from steering_core.storage.files import read_json, write_json

    resources = map(read_json, snakemake.input.resources)
    write_json(
        snakemake.output.provenance,
        provenance_of_tables(
            snakemake.params.configs,
            dict(zip(snakemake.params.names, resources, strict=True)),
            snakemake.params.codes,
            snakemake.input.products,
        ),
    )
