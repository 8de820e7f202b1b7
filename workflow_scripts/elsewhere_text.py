"""Read neutral text with and without each method, at its selected strength."""

from steering_core.runtime.job import job

with job(snakemake):
    from pathlib import Path

    import pandas as pd

    from steering_core.generation.by_method import SteeredMethods, selected_strength
    from steering_core.metrics.neutral_text import SCHEMA, cost_under
    from steering_core.models.resources import site_at
    from steering_core.storage.files import read_json
    from steering_core.storage.integrity import content_digest
    from steering_core.storage.parquet import write_parquet

    files, params, made = snakemake.input, snakemake.params, snakemake.output.cost
    settings, layer = params.settings, read_json(files.layer)
    methods = SteeredMethods(params, read_json(files.resources), layer)
    texts, pareto = pd.read_parquet(files.texts), pd.read_csv(files.pareto)
    digest = content_digest(files.texts)
    cost = methods.tables(
        Path(made).with_suffix(""),
        lambda method: cost_under(
            methods.lm,
            texts,
            {**params.methods[method], "pareto": files.pareto},
            method,
            site=site_at(layer),
            target_class=params.target_class,
            max_tokens=settings["max_tokens"],
            batch_tokens=settings["batch_tokens"],
        ),
        lambda method: {"texts": digest, "selected": selected_strength(method, pareto)},
        SCHEMA,
    )
    write_parquet(made, cost)
