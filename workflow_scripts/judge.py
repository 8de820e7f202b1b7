"""Judge every completion of an experiment."""

from steering_core.runtime.job import job

with job(snakemake):
    import pandas as pd

    from steering_core.config.task import Task
    from steering_core.metrics.judging import EvaluationProbeJudge, judge_texts, load_judge
    from steering_core.models.resources import fetched_model, site_at
    from steering_core.probes.linear_probe import LinearProbe
    from steering_core.storage.files import read_json
    from steering_core.storage.parquet import write_parquet

    settings = snakemake.params.settings
    task = Task(**snakemake.params.task)
    resources = read_json(snakemake.input.resources)
    if task.classifier is not None:
        judge = load_judge(task.classifier, settings["device"], resources["classifier"])
    else:
        judge = EvaluationProbeJudge(
            fetched_model(snakemake.params.model, resources, settings["device"]),
            site_at(read_json(snakemake.input.layer)),
            LinearProbe.load(snakemake.input.evaluation_probe),
            batch_tokens=settings["batch_tokens"],
        )
    columns = ["method", "strength_index", "example_id", "text"]
    generations = pd.concat(
        [pd.read_parquet(path, columns=columns) for path in snakemake.input.generations]
    ).reset_index(drop=True)
    write_parquet(snakemake.output.judged, judge_texts(generations, judge, task.target_class))
