"""Put one published number beside the measured one."""

from steering_core.runtime.job import job

with job(snakemake):
    from steering_core.corrsteer.published import Cell, measure
    from steering_core.corrsteer.report import read_answers
    from steering_core.storage.files import write_json

    params = snakemake.params
    runs = None
    if len(snakemake.input) > 0:
        runs = {}
        for (seed, method), path in zip(params.answers, snakemake.input, strict=True):
            runs.setdefault(seed, {})[method] = read_answers(path, method)
    cell = Cell(**params.cell)
    write_json(
        snakemake.output.cell,
        measure(
            cell,
            params.experiment,
            runs,
            n_resamples=params.bootstrap_resamples,
            model=params.model_id,
        ),
    )
