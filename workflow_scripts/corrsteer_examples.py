"""Make the splits and full prompts of one run."""

from steering_core.runtime.job import job

with job(snakemake):
    from types import SimpleNamespace

    import pandas as pd

    from steering_core.config.model import Model
    from steering_core.corrsteer.examples import (
        build_examples,
        prompt_options,
        suggest_chat_template,
        summary,
        write_examples,
    )
    from steering_core.corrsteer.read_items import source_of
    from steering_core.corrsteer.tasks import find_task
    from steering_core.models.language_model import load_tokenizer
    from steering_core.models.resources import pinned_model, wants_bos
    from steering_core.storage.files import read_json, write_json

    resources = read_json(snakemake.input.resources)
    entry = SimpleNamespace(**snakemake.params.task)
    task, seed = find_task(entry.task), int(snakemake.wildcards.seed)
    model, settings = Model(**snakemake.params.model), SimpleNamespace(**snakemake.params.settings)
    tokenizer = load_tokenizer(pinned_model(model, resources))
    rows, dropped = build_examples(
        pd.read_parquet(snakemake.input.rows),
        task,
        source_of(entry, task),
        settings,
        tokenizer,
        seed=seed,
        prepend_bos=wants_bos(resources),
        max_tokens=resources["max_tokens"],
    )
    write_examples(snakemake.output.examples, rows)
    suggestion = suggest_chat_template(prompt_options(settings), model.id, tokenizer)
    write_json(snakemake.output.summary, summary(rows, seed, dropped, suggestion=suggestion))
