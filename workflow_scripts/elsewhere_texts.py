"""Pin a dataset of neutral text, and draw texts from it."""

from steering_core.runtime.job import job

with job(snakemake, network=True):
    from types import SimpleNamespace

    from steering_core.config.model import Model
    from steering_core.hub.errors import retry_while_unavailable
    from steering_core.metrics.neutral_text import read_neutral_texts
    from steering_core.models.resources import fetched_tokenizer
    from steering_core.storage.files import read_json, write_json
    from steering_core.storage.parquet import write_parquet

    params, resources = snakemake.params, read_json(snakemake.input.resources)
    tokenizer = fetched_tokenizer(Model(**params.model), resources)
    texts, dataset = retry_while_unavailable(
        lambda: read_neutral_texts(
            SimpleNamespace(**params.source),
            tokenizer,
            prepend_bos=resources["saes"][0]["prepend_bos"],
            rows=params.settings["elsewhere_rows"],
            seed=params.settings["seed"],
        )
    )
    write_parquet(snakemake.output.texts, texts)
    write_json(snakemake.output.dataset, dataset)
