"""Record the digests of all results of an experiment."""

from steering_core.runtime.job import job

with job(snakemake):
    from steering_core.runtime.provenance import product_digests
    from steering_core.storage.files import read_json, write_json

    found = product_digests(
        read_json(snakemake.input.provenance), snakemake.params.codes, snakemake.input.products
    )
    write_json(snakemake.output.digests, found)
