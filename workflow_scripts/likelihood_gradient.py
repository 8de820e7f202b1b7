"""Compute what makes texts of the target class likelier, from gradients on training rows."""

from steering_core.runtime.job import job

with job(snakemake):
    import logging

    from steering_core.data.examples import read_examples
    from steering_core.generation.score_gradients import likelihood_gradient
    from steering_core.models.resources import fetched_model
    from steering_core.models.site import site_at
    from steering_core.models.tokens import tokenize
    from steering_core.storage.arrays import save_arrays
    from steering_core.storage.files import read_json

    files, settings = snakemake.input, snakemake.params.settings
    lm = fetched_model(snakemake.params.model, read_json(files.resources), settings["device"])
    site = site_at(read_json(files.layer))
    train = read_examples(files.examples, ["train"])
    found = likelihood_gradient(
        lm,
        tokenize(
            lm.tokenizer,
            train["text"].tolist(),
            prepend_bos=site.prepend_bos,
            max_tokens=settings["max_tokens"],
        ),
        (train["label"] == snakemake.params.target_class).to_numpy(dtype=bool),
        site,
        batch_tokens=settings["batch_tokens"],
    )
    report = {"relative_error": found.relative_error, "texts": found.texts}
    logging.getLogger(__name__).info("the likelihood gradient: %s", report)
    save_arrays(snakemake.output.gradient, {"vector": found.vector}, report)
