"""Compare every method with its references, prompt by prompt, and the judges with each other."""

from steering_core.runtime.job import job

with job(snakemake):
    import pandas as pd

    from steering_core.config.task import Task
    from steering_core.data.examples import read_examples
    from steering_core.methods.solutions import TEXT_KEY
    from steering_core.storage.files import write_text
    from steering_core.tables.differences import difference_table, judge_table
    from steering_core.tables.matched import dense_method

    files, settings = snakemake.input, snakemake.params.settings
    task = Task(**snakemake.params.task)
    names = task.judge_names
    prompts = read_examples(files.prompts, ["prompt"])["example_id"]
    texts = pd.concat([pd.read_parquet(path) for path in files.divergence])
    texts = texts.merge(pd.read_parquet(files.judged), on=[*TEXT_KEY], validate="one_to_one")
    texts = texts[texts["example_id"].isin(prompts)]
    boot = {"seed": settings["seed"], "n_resamples": settings["bootstrap_resamples"]}
    experiment = snakemake.wildcards.experiment
    differences = difference_table(
        experiment,
        texts,
        pd.read_csv(files.pareto),
        names,
        task.target_class,
        dense=dense_method(pd.read_csv(files.matched)),
        **boot,
    )
    write_text(snakemake.output.differences, differences.to_csv(index=False))
    judges = judge_table(experiment, texts, names, **boot)
    write_text(snakemake.output.judges, judges.to_csv(index=False))
