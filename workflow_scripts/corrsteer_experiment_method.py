"""Answers to the test rows under a method of an experiment that delivers pareto.csv."""

from steering_core.runtime.job import job

with job(snakemake):
    from types import SimpleNamespace

    import pandas as pd

    from steering_core.corrsteer.answers import undefined, write_answers
    from steering_core.corrsteer.examples import read_examples
    from steering_core.corrsteer.experiment_methods import (
        check_same_model,
        chosen_point,
        experiment_strength,
    )
    from steering_core.corrsteer.session import open_session
    from steering_core.corrsteer.sparse_answers import answer_at
    from steering_core.models.resources import site_at
    from steering_core.storage.files import read_json

    files, params = snakemake.input, snakemake.params
    source = SimpleNamespace(**params.source)
    resources = read_json(files.resources)
    check_same_model(resources, read_json(files.experiment_resources))
    rows = read_examples(files.examples, "test")
    method = [("method", "==", source.method)]
    pareto = files.get("pareto")
    point = chosen_point(
        pd.read_parquet(files.solutions, filters=method),
        source.strength,
        None if pareto is None else pd.read_csv(pareto),
    )
    if point is None:
        answers = undefined(rows, f"{source.experiment} selects no strength of {source.method}")
    else:
        session = open_session(
            params.model, params.task, SimpleNamespace(**params.settings), resources
        )
        site = site_at(read_json(files.layer))
        strength = experiment_strength(
            point,
            dict(files.items()),
            site=site,
            target_class=params.target_class,
            device=session.lm.device,
        )
        answers = answer_at(session, rows, site, strength)
    write_answers(snakemake.output.answers, answers)
