"""Compare the methods where they have the same effect."""

from steering_core.runtime.job import job

with job(snakemake):
    from steering_core.config.task import Task
    from steering_core.storage.files import write_text
    from steering_core.tables.matched import matched_table, read_comparison

    task, settings = Task(**snakemake.params.task), snakemake.params.settings
    compared = read_comparison(snakemake.input, task, settings)
    matched, curves = matched_table(compared, snakemake.wildcards.experiment)
    write_text(snakemake.output.matched, matched.to_csv(index=False))
    write_text(snakemake.output.curves, curves.to_csv(index=False))
