"""Write the results of an experiment over its seeds, and the page of changed answers."""

from steering_core.runtime.job import job

with job(snakemake):
    from steering_core.corrsteer.report import paired, read_answers, result_table, warnings_of
    from steering_core.storage.files import read_json, write_text
    from steering_core.tables.pages import changes_page

    runs = {}
    names = [(seed, arm) for seed in snakemake.params.seeds for arm in snakemake.params.arms]
    for (seed, arm), path in zip(names, snakemake.input.answers, strict=True):
        runs.setdefault(seed, {})[arm] = read_answers(path, arm)
    name = snakemake.wildcards.run
    suggestions = [read_json(path)["suggestion"] for path in snakemake.input.summaries]
    table = result_table(
        name,
        runs,
        n_resamples=snakemake.params.settings["bootstrap_resamples"],
        suggestion=next(filter(None, suggestions), ""),
    )
    write_text(snakemake.output.table, table.to_csv(index=False))
    pairs = {
        seed: {arm: paired(run["unsteered"], rows) for arm, rows in run.items()}
        for seed, run in runs.items()
    }
    warnings = warnings_of(table[table["seed"] == "all"])
    page = changes_page(f"{name}: what steering changed", pairs, warnings)
    write_text(snakemake.output.page, page)
