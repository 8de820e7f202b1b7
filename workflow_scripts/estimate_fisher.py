"""Estimate what vectors added at the site cost in KL: the Fisher information."""

from steering_core.runtime.job import job

with job(snakemake):
    import logging

    from steering_core.data.examples import read_examples
    from steering_core.generation.sampling import Sampling
    from steering_core.generation.score_gradients import beginnings, estimate_fisher
    from steering_core.models.resources import fetched_model
    from steering_core.models.site import site_at
    from steering_core.storage.files import read_json

    files, settings = snakemake.input, snakemake.params.settings
    wanted = snakemake.params.fisher
    lm = fetched_model(snakemake.params.model, read_json(files.resources), settings["device"])
    site = site_at(read_json(files.layer))
    names, prompts = beginnings(
        lm,
        read_examples(files.examples),
        wanted["texts"],
        settings["seed"],
        prepend_bos=site.prepend_bos,
    )
    sums = estimate_fisher(
        lm,
        names,
        prompts,
        site,
        Sampling(wanted["tokens"], settings["temperature"], settings["top_p"], settings["seed"]),
        samples=wanted["samples"],
        positions=settings["positions"],
        batch_rows=settings["batch_prompts"],
        batch_tokens=settings["batch_tokens"],
    )
    fisher = sums.fisher(wanted["shrinkage"])
    logging.getLogger(__name__).info("the Fisher information: %s", fisher.report())
    fisher.save(snakemake.output.fisher)
