"""Read neutral text with and without each method, at its selected strength."""

from steering_core.runtime.job import job

with job(snakemake):
    from functools import cache
    from pathlib import Path

    import pandas as pd

    from steering_core.generation.new_inputs import tables_of_methods
    from steering_core.metrics.neutral_text import SCHEMA, cost_under
    from steering_core.models.resources import fetched_model, site_at
    from steering_core.storage.files import read_json
    from steering_core.storage.integrity import content_digest
    from steering_core.storage.parquet import write_parquet

    files, params = snakemake.input, snakemake.params
    settings, resources, layer = params.settings, read_json(files.resources), read_json(files.layer)
    texts, made = pd.read_parquet(files.texts), snakemake.output.cost

    @cache
    def model():  # it is not loaded if every table is there
        return fetched_model(params.model, resources, settings["device"])

    cost = tables_of_methods(
        Path(made).with_suffix(""),
        params.methods,
        pd.read_csv(files.pareto),
        {
            "code": params.code,
            "settings": settings,
            "target_class": params.target_class,
            "model": resources["model"],
            "layer": layer,
            "texts": content_digest(files.texts),
        },
        lambda method: cost_under(
            model(),
            texts,
            {**params.methods[method], "pareto": files.pareto},
            method,
            site=site_at(layer),
            target_class=params.target_class,
            max_tokens=settings["max_tokens"],
            batch_tokens=settings["batch_tokens"],
        ),
        SCHEMA,
    )
    write_parquet(made, cost)
