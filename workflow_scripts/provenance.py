"""Record everything that determines the results of an experiment."""

from steering_core.runtime.job import job

with job(snakemake):
    from steering_core.runtime.provenance import provenance
    from steering_core.storage.files import read_json, write_json

    write_json(
        snakemake.output.provenance,
        provenance(
            snakemake.params.name,
            snakemake.params.config,
            read_json(snakemake.input.resources),
            snakemake.params.codes,
            snakemake.input.get("files", ()),
            snakemake.input.get("products", ()),
        ),
    )
