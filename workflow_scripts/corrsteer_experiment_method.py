"""Answers to the test rows under a method of an experiment that delivers pareto.csv."""

from steering_core.runtime.job import job

with job(snakemake):
    from types import SimpleNamespace

    from steering_core.corrsteer.answers import open_session, write_answers
    from steering_core.corrsteer.examples import read_examples
    from steering_core.corrsteer.sparse_methods import answers_under, check_same_model
    from steering_core.models.site import site_at
    from steering_core.storage.files import read_json

    files, params = snakemake.input, snakemake.params
    source = SimpleNamespace(**params.source)
    resources = read_json(files.resources)
    check_same_model(resources, read_json(files.experiment_resources))
    answers = answers_under(
        open_session(params.model, params.task, SimpleNamespace(**params.settings), resources),
        read_examples(files.examples, "test"),
        dict(files.items()),
        source.method,
        source.strength,
        site=site_at(read_json(files.layer)),
        target_class=params.target_class,
        positions=params.positions,
    )
    write_answers(snakemake.output.answers, answers)
