"""Write the table of a model's trained SAEs."""

from steering_core.runtime.job import job

with job(snakemake):
    from steering_core.storage.files import read_json, write_text
    from steering_core.tables.columns import made_table

    rows = [read_json(file) for file in snakemake.input.measured]
    table = made_table(sorted(rows, key=lambda row: row["layer"]), "sparse_autoencoders")
    write_text(snakemake.output.table, table.to_csv(index=False))
