"""Complete the prompts under one method, at all its strengths."""

from steering_core.runtime.job import job

with job(snakemake):
    from steering_core.data.examples import read_examples
    from steering_core.generation.sampling import Sampling
    from steering_core.generation.steered_method import read_steered_method
    from steering_core.generation.table import generate_method, write_generations
    from steering_core.models.resources import fetched_model, site_at
    from steering_core.storage.files import read_json

    files, settings = snakemake.input, snakemake.params.settings
    lm = fetched_model(snakemake.params.model, read_json(files.resources), settings["device"])
    generations = generate_method(
        lm,
        read_examples(files.prompts),
        read_steered_method(
            snakemake.wildcards.method,
            dict(files.items()),
            site_at(read_json(files.layer)),
            positions=settings["positions"],
            target_class=snakemake.params.target_class,
            device=lm.device,
        ),
        Sampling(
            settings["new_tokens"], settings["temperature"], settings["top_p"], settings["seed"]
        ),
        max_tokens=settings["max_tokens"],
        batch_size=settings["batch_prompts"],
        draws=settings["draws"],
    )
    write_generations(generations, snakemake.output.generations)
