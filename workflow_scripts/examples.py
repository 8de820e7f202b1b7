"""Make one table of the labelled rows and the texts that directions are fitted on."""

from steering_core.runtime.job import job

with job(snakemake):
    from types import SimpleNamespace

    import pandas as pd

    from steering_core.config.model import Model
    from steering_core.config.task import Task
    from steering_core.data.build import build_examples
    from steering_core.data.concept import read_concept
    from steering_core.data.examples import summary, write_examples
    from steering_core.models.resources import fetched_tokenizer
    from steering_core.models.tokens import token_counter, uses_chat_template
    from steering_core.storage.files import read_json, write_json

    resources = read_json(snakemake.input.resources)
    tokenizer = fetched_tokenizer(Model(**snakemake.params.model), resources)
    settings = SimpleNamespace(**snakemake.params.settings)
    chat = uses_chat_template(settings.chat_template, tokenizer)
    examples, dropped = build_examples(
        pd.read_parquet(snakemake.input.dataset),
        read_concept(snakemake.input.concept),
        settings,
        token_counter(
            tokenizer, prepend_bos=resources["saes"][0]["prepend_bos"], chat_template=chat
        ),
        questions=Task(**snakemake.params.task).question is not None,
    )
    write_examples(snakemake.output.examples, examples)
    write_json(snakemake.output.summary, summary(examples, dropped, chat_template=chat))
