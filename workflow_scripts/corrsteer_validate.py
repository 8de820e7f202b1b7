"""Measure the validation accuracy of each layer of an arm alone."""

from steering_core.runtime.job import job

with job(snakemake):
    from types import SimpleNamespace

    from steering_core.corrsteer.examples import read_examples
    from steering_core.corrsteer.plan import Plan
    from steering_core.corrsteer.session import open_session
    from steering_core.corrsteer.strategy import validate_layers
    from steering_core.storage.files import read_json, write_text

    session = open_session(
        snakemake.params.model,
        snakemake.params.task,
        SimpleNamespace(**snakemake.params.settings),
        read_json(snakemake.input.resources),
    )
    rows = read_examples(snakemake.input.examples, "validation")
    table = validate_layers(session, rows, Plan.load(snakemake.input.plan))
    write_text(snakemake.output.validation, table.to_csv(index=False))
