"""Find the contrastive direction of a concept file, at the site of the experiment, for guards."""

from steering_core.runtime.job import job

with job(snakemake):
    from steering_core.data.concept import read_concept
    from steering_core.methods.guard_directions import mean_contrast
    from steering_core.models.residual_stream import last_token_residuals
    from steering_core.models.resources import fetched_model
    from steering_core.models.site import site_at
    from steering_core.models.tokens import uses_chat_template
    from steering_core.storage.arrays import save_arrays
    from steering_core.storage.files import read_json

    files, settings = snakemake.input, snakemake.params.settings
    pairs = read_concept(files.concept).contrast
    lm = fetched_model(snakemake.params.model, read_json(files.resources), settings["device"])
    residuals = last_token_residuals(
        lm,
        [text for pair in pairs for text in (pair.positive, pair.negative)],
        site_at(read_json(files.layer)),
        max_tokens=settings["max_tokens"],
        batch_tokens=settings["batch_tokens"],
        chat_template=uses_chat_template(settings["chat_template"], lm.tokenizer),
    )
    direction = mean_contrast(residuals[::2], residuals[1::2], files.concept)
    save_arrays(snakemake.output.direction, {"vector": direction}, {"pairs": len(pairs)})
