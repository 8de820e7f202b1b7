# Generate steered completions of the prompts, and measure the effect of steering on the model's
# predictions, on the text and on the probes.


# One process generates with all methods of a job, so the model is loaded once; the divergence is
# measured in the same way. The table of each method is kept in `methods` beside the output once it
# is complete.
rule generate:
    input:
        steering=shard_files,
        resources=rules.fetch.output.resources,
        prompts=rules.prompts.output.prompts,
        layer=rules.pick_layer.output.layer,
    output:
        generations="results/{experiment}/generations/part-{shard}.parquet",
    log:
        "results/{experiment}/logs/generate-{shard}.log",
    benchmark:
        "results/{experiment}/benchmarks/generate-{shard}.tsv"
    conda:
        "../envs/steering.yaml"
    threads: cores
    resources:
        mem_mb=megabytes(16000, model=1.5, sae=2),
        runtime=minutes(720),
        gpu=gpus,
    params:
        model=model,
        target_class=target_class,
        methods=shard_methods,
        settings=settings(
            "seed",
            "max_tokens",
            "chat_template",
            "new_tokens",
            "temperature",
            "top_p",
            "positions",
            "batch_prompts",
            "draws",
            "device",
        ),
        code=code("generate.py"),
    script:
        "../workflow_scripts/generate.py"


rule divergence:
    input:
        steering=shard_files,
        resources=rules.fetch.output.resources,
        layer=rules.pick_layer.output.layer,
        generations=rules.generate.output.generations,
    output:
        divergence="results/{experiment}/divergence/part-{shard}.parquet",
    log:
        "results/{experiment}/logs/divergence-{shard}.log",
    benchmark:
        "results/{experiment}/benchmarks/divergence-{shard}.tsv"
    conda:
        "../envs/steering.yaml"
    threads: cores
    resources:
        mem_mb=megabytes(16000, model=1.5, sae=2),
        runtime=minutes(720),
        gpu=gpus,
    params:
        model=model,
        target_class=target_class,
        methods=shard_methods,
        settings=settings("positions", "batch_tokens", "device"),
        code=code("divergence.py"),
    script:
        "../workflow_scripts/divergence.py"


rule judge:
    input:
        resources=rules.fetch.output.resources,
        layer=rules.pick_layer.output.layer,
        evaluation_probe=rules.fit_probes.output.evaluation_probe,
        generations=methods_of(rules.generate.output.generations),
    output:
        judged="results/{experiment}/judged.parquet",
    log:
        "results/{experiment}/logs/judge.log",
    benchmark:
        "results/{experiment}/benchmarks/judge.tsv"
    conda:
        "../envs/steering.yaml"
    threads: cores
    resources:
        mem_mb=megabytes(16000, model=1.5, judges=1.5),
        runtime=minutes(120),
        gpu=gpus,
    params:
        model=model,
        task=task,
        settings=settings("chat_template", "batch_tokens", "device"),
        asked=judge_asked("judge"),
        code=code("judge.py"),
    script:
        "../workflow_scripts/judge.py"


rule probe_effects:
    input:
        resources=rules.fetch.output.resources,
        examples=rules.examples.output.examples,
        manifest=rules.activation_manifest.output.manifest,
        layer=rules.pick_layer.output.layer,
        paths=all_paths,
        solutions=all_solutions,
        plans=lambda wildcards: expand(
            PLAN_VECTORS, experiment=wildcards.experiment, method=plans(wildcards)
        ),
        directions=rules.fit_directions.output.directions,
        probe=rules.fit_probes.output.probe,
        evaluation_probe=rules.fit_probes.output.evaluation_probe,
    output:
        effects="results/{experiment}/probe_effects.parquet",
    log:
        "results/{experiment}/logs/probe_effects.log",
    benchmark:
        "results/{experiment}/benchmarks/probe_effects.tsv"
    conda:
        "../envs/steering.yaml"
    resources:
        mem_mb=megabytes(8000, sae=3),
        runtime=minutes(60),
    params:
        target_class=target_class,
        settings=settings("methods"),
        plans=plans,
        code=code("probe_effects.py"),
    script:
        "../workflow_scripts/probe_effects.py"
