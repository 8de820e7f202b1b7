"""Pin and download a model and the texts that its SAEs are trained on, and choose the texts."""

from steering_core.runtime.job import job

with job(snakemake, network=True):
    from steering_core.config.model import Model, SAETraining
    from steering_core.hub.errors import retry_while_unavailable
    from steering_core.models.devices import choose_dtype
    from steering_core.models.fetch import fetch_weights
    from steering_core.models.resources import fetched_tokenizer
    from steering_core.storage.files import write_json
    from steering_core.storage.parquet import write_parquet
    from steering_core.training.texts import choose_texts, describe_training, read_texts

    model, training = Model(**snakemake.params.model), SAETraining(**snakemake.params.whole)
    dtype = choose_dtype(model.dtype, snakemake.params.device)
    found = retry_while_unavailable(lambda: describe_training(model, training, dtype))
    texts, datasets = retry_while_unavailable(lambda: read_texts(training.texts))
    table = choose_texts(
        texts,
        fetched_tokenizer(model, found),
        prepend_bos=found["prepend_bos"],
        tokens=training.tokens,
        max_tokens=training.max_tokens,
        seed=training.seed,
    )
    pinned = found["model"]
    retry_while_unavailable(lambda: fetch_weights(pinned["id"], pinned["revision"]))
    write_parquet(snakemake.output.texts, table)
    write_json(snakemake.output.resources, {**found, "dataset": datasets})
