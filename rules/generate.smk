# Continuations of the prompts under every method and strength.
rule generate:
    input:
        unpack(steering_files),
        resources=rules.fetch.output.resources,
        examples=rules.examples.output.examples,
        layer=rules.pick_layer.output.layer,
    output:
        generations="results/{experiment}/generations/{method}.parquet",
    log:
        "results/{experiment}/logs/generate-{method}.log",
    benchmark:
        "results/{experiment}/benchmarks/generate-{method}.tsv"
    conda:
        "../envs/steering.yaml"
    threads: 2
    resources:
        mem_mb=megabytes(16000),
        runtime=minutes(240),
        gpu=gpus,
    params:
        model=model,
        target_class=lambda wildcards: experiment(wildcards).task.target_class,
        settings=settings(
            "seed",
            "max_tokens",
            "new_tokens",
            "temperature",
            "top_p",
            "positions",
            "batch_prompts",
            "device",
        ),
        code=code("generate.py"),
    script:
        "../workflow_scripts/generate.py"
