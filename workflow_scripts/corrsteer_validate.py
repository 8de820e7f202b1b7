"""Measure the validation accuracy of each layer of an arm alone, unless it is known."""

from steering_core.runtime.job import job

with job(snakemake):
    from pathlib import Path

    from steering_core.corrsteer.kept_answers import KeptAnswers
    from steering_core.storage.files import read_json, write_text

    files, params, made = snakemake.input, snakemake.params, snakemake.output.validation
    folder = Path(made).parents[1]
    kept = KeptAnswers(params, read_json(files.resources), files.examples, folder)
    found = kept.validation(snakemake.wildcards.arm, files.plan, params.code)
    write_text(made, found.read_text(encoding="utf-8"))
