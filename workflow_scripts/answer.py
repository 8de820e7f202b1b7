"""State the answer of an experiment: the short summary, and the verdict in words."""

from steering_core.runtime.job import job

with job(snakemake):
    import pandas as pd

    from steering_core.storage.files import write_json, write_text
    from steering_core.tables.verdict import Tables, summary_table, verdict

    named = ("pareto", "matched", "price", "differences", "judges")
    tables = Tables(**{name: pd.read_csv(snakemake.input[name]) for name in named})
    summary = summary_table(tables.pareto, tables.matched, pd.read_csv(snakemake.input.curves))
    write_text(snakemake.output.summary, summary.to_csv(index=False))
    settings = snakemake.params.settings
    found = verdict(
        tables, summary, factor=settings["matched_factor"], features=settings["matched_features"]
    )
    write_json(snakemake.output.verdict, found)
