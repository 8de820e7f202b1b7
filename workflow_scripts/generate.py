"""Continuations of the prompts under one method, at all its strengths."""

from steering_core.runtime.job import job

with job(snakemake):
    from steering_core.data.examples import PROMPT_SPLITS, read_examples
    from steering_core.generation.generate import Sampling
    from steering_core.generation.plan import load_solver
    from steering_core.generation.table import generate_method, write_generations
    from steering_core.methods.interventions import read_interventions
    from steering_core.models.resources import fetched_model, site_at
    from steering_core.storage.files import read_json

    files, settings = snakemake.input, snakemake.params.settings
    method = snakemake.wildcards.method
    resources = read_json(files.resources)
    lm = fetched_model(snakemake.params.model, resources, settings["device"])
    site = site_at(read_json(files.layer))
    generations = generate_method(
        lm,
        read_examples(files.examples, PROMPT_SPLITS),
        read_interventions(method, files.solutions, files.get("directions"), files.get("path")),
        site,
        Sampling(
            settings["new_tokens"], settings["temperature"], settings["top_p"], settings["seed"]
        ),
        positions=settings["positions"],
        max_tokens=settings["max_tokens"],
        batch_size=settings["batch_prompts"],
        solver=load_solver(
            method,
            files.get("path"),
            files.get("probe"),
            snakemake.params.target_class,
            files.get("decoder"),
            site,
            lm.device,
        ),
    )
    write_generations(generations, snakemake.output.generations)
