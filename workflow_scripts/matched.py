"""Compare the methods where they have the same effect."""

from steering_core.runtime.job import job

with job(snakemake):
    import pandas as pd

    from steering_core.storage.files import write_text
    from steering_core.tables.matched import judge_name, matched_table
    from steering_core.tables.pareto import gather

    files, task = snakemake.input, snakemake.params.task
    settings = snakemake.params.settings
    judged = pd.read_parquet(files.judged)
    measured = gather(
        pd.read_parquet([*files.solutions]),
        pd.read_parquet(files.effects),
        [pd.read_parquet(path) for path in files.divergence],
        judged,
    )
    effect = settings["matched_effect"]
    matched, curves = matched_table(
        measured,
        snakemake.wildcards.experiment,
        judge=judge_name(task["classifier"]),
        target_class=task["target_class"],
        effect=None if effect == "half" else effect,
        budget=settings["selection_kl"],
        seed=settings["seed"],
        n_resamples=settings["bootstrap_resamples"],
        draws=int(judged["draw"].nunique()),
    )
    write_text(snakemake.output.matched, matched.to_csv(index=False))
    write_text(snakemake.output.curves, curves.to_csv(index=False))
