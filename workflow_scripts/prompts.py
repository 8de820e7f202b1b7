"""Make the table of the prompts that are continued."""

from steering_core.runtime.job import job

with job(snakemake):
    from types import SimpleNamespace

    from steering_core.config.model import Model
    from steering_core.data.build import build_prompts
    from steering_core.data.concept import read_concept
    from steering_core.data.examples import write_examples
    from steering_core.models.resources import fetched_tokenizer
    from steering_core.models.tokens import token_counter, uses_chat_template
    from steering_core.storage.files import read_json

    resources = read_json(snakemake.input.resources)
    tokenizer = fetched_tokenizer(Model(**snakemake.params.model), resources)
    settings = SimpleNamespace(**snakemake.params.settings)
    prompts = build_prompts(
        read_concept(snakemake.input.concept),
        settings,
        token_counter(
            tokenizer,
            prepend_bos=resources["saes"][0]["prepend_bos"],
            chat_template=uses_chat_template(settings.chat_template, tokenizer),
        ),
        new_tokens=snakemake.params.new_tokens,
        context=resources["shape"]["context"],
    )
    write_examples(snakemake.output.prompts, prompts)
