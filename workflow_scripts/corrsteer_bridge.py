"""Answers to the test rows under a method of optimal sparse steering, at its best strength."""

from steering_core.job import job

with job(snakemake):
    import pandas as pd

    from steering_core.config.corrsteer import Bridge
    from steering_core.config.model import Model
    from steering_core.config.view import SettingsView
    from steering_core.corrsteer.answers import write_answers
    from steering_core.corrsteer.bridge import answer_bridge
    from steering_core.corrsteer.examples import read_examples
    from steering_core.corrsteer.plan import Plan
    from steering_core.corrsteer.run import open_run
    from steering_core.models.pins import pinned_sae
    from steering_core.models.sparse_autoencoder import load_sae
    from steering_core.storage.atomic import write_text
    from steering_core.storage.json import read_json

    resources = read_json(snakemake.input.resources)
    run = open_run(
        snakemake.params.model,
        snakemake.params.task,
        SettingsView(snakemake.params.settings),
        resources,
    )
    source = pinned_sae(Model(**snakemake.params.model), resources)
    success = pd.read_parquet(snakemake.input.training, columns=["example_id", "success"])
    train = read_examples(snakemake.input.examples, "train").merge(
        success, on="example_id", validate="one_to_one"
    )
    bridged = answer_bridge(
        run,
        snakemake.wildcards.method,
        Bridge(**snakemake.params.bridge),
        Plan.load(snakemake.input.plan),
        lambda layer, features: load_sae(source, layer).decoder[features],
        train,
        read_examples(snakemake.input.examples, "validation"),
        read_examples(snakemake.input.examples, "test"),
        seed=int(snakemake.wildcards.seed),
        chat_template=snakemake.params.settings["chat_template"],
    )
    write_answers(snakemake.output.answers, bridged.answers)
    write_text(snakemake.output.validation, bridged.validation.to_csv(index=False))
