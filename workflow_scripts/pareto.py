"""Aggregate the measurements into pareto.csv."""

from steering_core.runtime.job import job

with job(snakemake):
    from types import SimpleNamespace

    import pandas as pd

    from steering_core.runtime.provenance import short_digests
    from steering_core.storage.files import read_json, write_text
    from steering_core.tables.caveats import judge_warnings, probe_warnings
    from steering_core.tables.measured import gather
    from steering_core.tables.pareto import Subject, pareto_table

    files, params = snakemake.input, snakemake.params
    measured = gather(
        pd.read_parquet([*files.solutions]),
        pd.read_parquet(files.effects),
        [pd.read_parquet(path) for path in files.divergence],
        pd.read_parquet(files.judged),
    )
    subject = Subject(
        experiment=snakemake.wildcards.experiment,
        model=params.model["id"],
        task=params.task_name,
        layer=read_json(files.layer)["layer"],
        warnings=[
            *probe_warnings(read_json(files.probes)),
            *judge_warnings(params.task["classifier"], measured.texts),
        ],
        **short_digests(read_json(files.provenance)),
    )
    methods = [*params.settings["methods"], *params.plans]
    settings = SimpleNamespace(**{**params.settings, "methods": methods})
    table = pareto_table(subject, measured, settings)
    write_text(snakemake.output.pareto, table.to_csv(index=False))
