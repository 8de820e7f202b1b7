"""Answer another task's questions under each method, at its selected strength."""

from steering_core.runtime.job import job

with job(snakemake):
    from functools import cache
    from pathlib import Path
    from types import SimpleNamespace

    import pandas as pd

    from steering_core.corrsteer.answers import SCHEMA, open_session
    from steering_core.corrsteer.examples import read_examples
    from steering_core.corrsteer.sparse_methods import answers_under, check_same_model
    from steering_core.generation.by_method import SteeredMethods, selected_strength
    from steering_core.models.resources import site_at
    from steering_core.storage.files import read_json
    from steering_core.storage.integrity import content_digest
    from steering_core.storage.parquet import write_parquet

    files, params = snakemake.input, snakemake.params
    resources, layer = read_json(files.run_resources), read_json(files.layer)
    check_same_model(resources, read_json(files.resources))
    rows, made = read_examples(files.examples, "test"), snakemake.output.answers
    pareto, questions = pd.read_csv(files.pareto), content_digest(files.examples)

    @cache
    def session():  # it is not opened if every table is there
        settings = SimpleNamespace(**params.answering)
        return open_session(params.model, params.task, settings, resources)

    answers = SteeredMethods(params, resources, layer).tables(
        Path(made).with_suffix(""),
        lambda method: answers_under(
            session(),
            rows,
            {**params.methods[method], "pareto": files.pareto},
            method,
            "selected",
            site=site_at(layer),
            target_class=params.target_class,
            positions=params.settings["positions"],
        ),
        lambda method: {
            "answering": params.answering,
            "task": params.task,
            "resources": {key: resources[key] for key in ("classifier", "saes")},
            "questions": questions,
            "selected": selected_strength(method, pareto),
        },
        SCHEMA,
    )
    write_parquet(made, answers)
