"""Answer the test rows unsteered and under all arms of a job."""

from steering_core.runtime.job import job

with job(snakemake):
    from pathlib import Path

    from steering_core.corrsteer.kept_answers import KeptAnswers, answers_of_arms
    from steering_core.storage.files import read_json
    from steering_core.storage.parquet import write_parquet

    files, params, made = snakemake.input, snakemake.params, snakemake.output.answers
    kept = KeptAnswers(params, read_json(files.resources), files.examples, Path(made).parent)
    write_parquet(made, answers_of_arms(kept, params.arms, params.validation_code))
