"""Dataset and concept texts to one table with splits."""

from steering_core.job import job

with job(snakemake):
    import pandas as pd

    from steering_core.config.model import Model
    from steering_core.config.task import Task
    from steering_core.config.view import SettingsView
    from steering_core.data.build import build_examples
    from steering_core.data.concept import read_concept
    from steering_core.data.examples import summary, write_examples
    from steering_core.models.language_model import load_tokenizer
    from steering_core.models.resources import pinned_model
    from steering_core.models.tokens import count_tokens
    from steering_core.storage.atomic import write_json
    from steering_core.storage.json import read_json

    resources = read_json(snakemake.input.resources)
    tokenizer = load_tokenizer(pinned_model(Model(**snakemake.params.model), resources))
    examples = build_examples(
        pd.read_parquet(snakemake.input.dataset),
        Task(**snakemake.params.task),
        read_concept(snakemake.input.concept),
        SettingsView(snakemake.params.settings),
        lambda texts: count_tokens(tokenizer, texts, resources["saes"][0]["prepend_bos"]),
        context=resources["shape"]["context"],
    )
    write_examples(snakemake.output.examples, examples)
    write_json(snakemake.output.summary, summary(examples))
