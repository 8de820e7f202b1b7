"""Accuracy of every layer of an arm alone on the validation rows."""

from steering_core.runtime.job import job

with job(snakemake):
    from types import SimpleNamespace

    from steering_core.corrsteer.answers import answer
    from steering_core.corrsteer.examples import read_examples
    from steering_core.corrsteer.plan import Plan
    from steering_core.corrsteer.run import open_run
    from steering_core.corrsteer.validation import validate_layers
    from steering_core.storage.files import read_json, write_text

    run = open_run(
        snakemake.params.model,
        snakemake.params.task,
        SimpleNamespace(**snakemake.params.settings),
        read_json(snakemake.input.resources),
    )
    rows = read_examples(snakemake.input.examples, "validation")

    def answered(interventions):
        return answer(
            run.lm,
            rows,
            run.task,
            run.how,
            run.classifier,
            interventions=interventions,
            reasoned=run.reasoned,
        )

    table = validate_layers(Plan.load(snakemake.input.plan), answered)
    write_text(snakemake.output.validation, table.to_csv(index=False))
