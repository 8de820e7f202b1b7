"""Judge every completion of an experiment."""

from steering_core.runtime.job import job

with job(snakemake):
    import pandas as pd

    from steering_core.config.task import Task
    from steering_core.methods.solutions import TEXT_KEY
    from steering_core.metrics.judging import EvaluationProbeJudge, judge_texts, load_judge
    from steering_core.models.resources import fetched_model
    from steering_core.models.site import site_at
    from steering_core.models.tokens import uses_chat_template
    from steering_core.probes.linear_probe import LinearProbe
    from steering_core.storage.files import read_json
    from steering_core.storage.parquet import write_parquet

    settings = snakemake.params.settings
    task = Task(**snakemake.params.task)
    resources = read_json(snakemake.input.resources)
    if task.classifier is not None:
        judge = load_judge(task.classifier, settings["device"], resources["classifier"])
    else:
        lm = fetched_model(snakemake.params.model, resources, settings["device"])
        judge = EvaluationProbeJudge(
            lm,
            site_at(read_json(snakemake.input.layer)),
            LinearProbe.load(snakemake.input.evaluation_probe),
            batch_tokens=settings["batch_tokens"],
            chat_template=uses_chat_template(settings["chat_template"], lm.tokenizer),
        )
    further = {
        one.name: load_judge(one, settings["device"], pinned)
        for one, pinned in zip(task.further_judges, resources["further_judges"], strict=True)
    }
    columns = [*TEXT_KEY, "text"]
    generations = pd.concat(
        [pd.read_parquet(path, columns=columns) for path in snakemake.input.generations]
    ).reset_index(drop=True)
    judged = judge_texts(generations, judge, task.target_class, further)
    write_parquet(snakemake.output.judged, judged)
