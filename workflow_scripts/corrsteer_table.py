"""Collect all cells of a published table."""

from steering_core.runtime.job import job

with job(snakemake):
    from steering_core.corrsteer.published import table_of
    from steering_core.storage.files import read_json, write_text

    table = table_of([read_json(path) for path in snakemake.input])
    write_text(snakemake.output.table, table.to_csv(index=False))
