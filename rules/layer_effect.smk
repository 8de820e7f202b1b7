# `layer: effect`: try a few layers with one direction on the validation prompts, and take the layer
# where the same effect costs least. Each layer is a job of its own, so one that is killed starts
# again without the others.


rule try_layer:
    input:
        resources=rules.fetch.output.resources,
        examples=rules.examples.output.examples,
        prompts=rules.prompts.output.prompts,
        manifest=rules.activation_manifest.output.manifest,
    output:
        trial="results/{experiment}/layer_trials/{layer}.parquet",
    log:
        "results/{experiment}/logs/try_layer-{layer}.log",
    benchmark:
        "results/{experiment}/benchmarks/try_layer-{layer}.tsv"
    conda:
        "../envs/steering.yaml"
    threads: cores
    resources:
        mem_mb=megabytes(16000, model=1.5),
        runtime=minutes(240),
        gpu=gpus,
    params:
        model=model,
        task=task,
        settings=settings(
            "seed",
            "effect_direction",
            "strengths",
            "max_tokens",
            "new_tokens",
            "temperature",
            "top_p",
            "positions",
            "batch_prompts",
            "batch_tokens",
            "draws",
            "chat_template",
            "device",
        ),
        asked=judge_asked("try_layer"),
        code=code("try_layer.py"),
    script:
        "../workflow_scripts/try_layer.py"


rule layer_effect:
    input:
        trials=lambda wildcards: expand(
            rules.try_layer.output.trial,
            experiment=wildcards.experiment,
            layer=experiment(wildcards).settings.effect_layers,
        ),
    output:
        table="results/{experiment}/layer_effect.csv",
        figure=report(
            "results/{experiment}/layer_effect.svg",
            caption="report/layer_effect.rst",
            category="{experiment}",
            labels={"what": "what each layer costs"},
        ),
    log:
        "results/{experiment}/logs/layer_effect.log",
    benchmark:
        "results/{experiment}/benchmarks/layer_effect.tsv"
    conda:
        "../envs/steering.yaml"
    params:
        task=task,
        settings=settings("seed", "bootstrap_resamples", "selection_kl", "matched_effect"),
        code=code("layer_effect.py"),
    script:
        "../workflow_scripts/layer_effect.py"
