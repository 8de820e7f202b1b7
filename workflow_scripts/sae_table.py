"""Write the table of a model's trained SAEs."""

from steering_core.runtime.job import job

with job(snakemake):
    from steering_core.storage.files import read_json, write_text
    from steering_core.training.layer import sae_table

    table = sae_table([read_json(file) for file in snakemake.input.measured])
    write_text(snakemake.output.table, table.to_csv(index=False))
