"""State the answer of an experiment: the summary of ten columns, and the verdict in words."""

from steering_core.runtime.job import job

with job(snakemake):
    import pandas as pd

    from steering_core.storage.files import write_json, write_text
    from steering_core.tables.verdict import Tables, summary_table, verdict

    named = ("pareto", "matched", "price", "differences", "judges")
    tables = Tables(**{name: pd.read_csv(snakemake.input[name]) for name in named})
    summary = summary_table(tables.pareto, tables.matched, pd.read_csv(snakemake.input.curves))
    write_text(snakemake.output.summary, summary.to_csv(index=False))
    found = verdict(tables, summary, factor=snakemake.params.settings["matched_factor"])
    write_json(snakemake.output.verdict, found)
