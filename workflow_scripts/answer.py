"""State the answer of an experiment: the summary of ten columns, and the verdict in words."""

from steering_core.runtime.job import job

with job(snakemake):
    import pandas as pd

    from steering_core.storage.files import write_json, write_text
    from steering_core.tables.verdict import summary_table, verdict

    pareto, matched, curves = (
        pd.read_csv(snakemake.input[name]) for name in ("pareto", "matched", "curves")
    )
    summary = summary_table(pareto, matched, curves)
    write_text(snakemake.output.summary, summary.to_csv(index=False))
    found = verdict(pareto, matched, summary, factor=snakemake.params.settings["matched_factor"])
    write_json(snakemake.output.verdict, found)
