"""Steer the validation prompts with one direction at one layer, for `layer: effect`."""

from steering_core.runtime.job import job

with job(snakemake):
    from steering_core.activations.reader import ActivationCache
    from steering_core.config.task import Task
    from steering_core.data.examples import read_examples
    from steering_core.generation.sampling import Sampling
    from steering_core.methods.directions import FitData
    from steering_core.metrics.judging import load_judge
    from steering_core.metrics.layer_by_effect import Trial, try_layer
    from steering_core.models.resources import fetched_model
    from steering_core.models.site import site_at
    from steering_core.models.tokens import uses_chat_template
    from steering_core.storage.files import read_json
    from steering_core.storage.parquet import write_parquet

    files, settings = snakemake.input, snakemake.params.settings
    task, resources = Task(**snakemake.params.task), read_json(files.resources)
    layer = int(snakemake.wildcards.layer)
    site = site_at(next(sae for sae in resources["saes"] if sae["layer"] == layer))
    cache = ActivationCache(files.manifest, resources, files.examples)
    data = FitData.of_examples(
        read_examples(files.examples),
        lambda ids: cache.matrix(site.hook_name, ids),
        target_class=task.target_class,
        centred=site.centred,
        seed=settings["seed"],
    )
    lm = fetched_model(snakemake.params.model, resources, settings["device"])
    trial = Trial(
        settings["effect_direction"],
        tuple(settings["strengths"]),
        Sampling(
            settings["new_tokens"], settings["temperature"], settings["top_p"], settings["seed"]
        ),
        settings["draws"],
        settings["max_tokens"],
        settings["positions"],
        settings["batch_prompts"],
        settings["batch_tokens"],
        uses_chat_template(settings["chat_template"], lm.tokenizer),
    )
    trials = try_layer(
        lm,
        site,
        read_examples(files.prompts, ["validation_prompt"]),
        data,
        trial,
        load_judge(task.classifier, settings["device"], resources["classifier"]),
        task.target_class,
    )
    write_parquet(snakemake.output.trial, trials)
