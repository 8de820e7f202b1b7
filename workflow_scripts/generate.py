"""Complete the prompts under all methods of a job, each at all its strengths."""

from steering_core.runtime.job import job

with job(snakemake):
    from pathlib import Path

    from steering_core.data.examples import read_examples
    from steering_core.generation.by_method import SteeredMethods
    from steering_core.generation.sampling import Sampling
    from steering_core.generation.table import SCHEMA, generate_method
    from steering_core.models.tokens import uses_chat_template
    from steering_core.storage.files import read_json
    from steering_core.storage.integrity import content_digest
    from steering_core.storage.parquet import write_parquet

    files, settings = snakemake.input, snakemake.params.settings
    methods = SteeredMethods(snakemake.params, read_json(files.resources), read_json(files.layer))
    prompts = read_examples(files.prompts)
    source = {"prompts": content_digest(files.prompts)}
    generations = methods.tables(
        Path(snakemake.output.generations).parent / "methods",
        lambda method: generate_method(
            methods.lm,
            prompts,
            methods.steered(method),
            Sampling(
                settings["new_tokens"], settings["temperature"], settings["top_p"], settings["seed"]
            ),
            max_tokens=settings["max_tokens"],
            batch_size=settings["batch_prompts"],
            draws=settings["draws"],
            chat_template=uses_chat_template(settings["chat_template"], methods.lm.tokenizer),
        ),
        lambda method: source,
        SCHEMA,
    )
    write_parquet(snakemake.output.generations, generations, SCHEMA)
