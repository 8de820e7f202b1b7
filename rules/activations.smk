# Cache the residual stream of every configured layer in one pass, then encode SAE features at the
# chosen layer.
rule cache_activations:
    input:
        resources=rules.fetch.output.resources,
        examples=rules.examples.output.examples,
    output:
        part="results/{experiment}/activations/part-{shard}.parquet",
    log:
        "results/{experiment}/logs/cache_activations-{shard}.log",
    benchmark:
        "results/{experiment}/benchmarks/cache_activations-{shard}.tsv"
    conda:
        "../envs/steering.yaml"
    threads: cores
    resources:
        mem_mb=megabytes(16000, model=1.5),
        runtime=minutes(240),
        gpu=gpus,
    params:
        model=model,
        settings=settings(
            "max_tokens",
            "chat_template",
            "cached_positions",
            "batch_tokens",
            "shards",
            "device",
        ),
        code=code("cache_activations.py"),
    script:
        "../workflow_scripts/cache_activations.py"


rule activation_manifest:
    input:
        resources=rules.fetch.output.resources,
        examples=rules.examples.output.examples,
        parts=lambda wildcards: expand(
            rules.cache_activations.output.part,
            experiment=wildcards.experiment,
            shard=range(experiment(wildcards).settings.shards),
        ),
    output:
        manifest="results/{experiment}/activations/manifest.json",
    log:
        "results/{experiment}/logs/activation_manifest.log",
    benchmark:
        "results/{experiment}/benchmarks/activation_manifest.tsv"
    conda:
        "../envs/steering.yaml"
    params:
        settings=settings("max_tokens", "cached_positions"),
        code=code("activation_manifest.py"),
    script:
        "../workflow_scripts/activation_manifest.py"


# Few texts, so one job caches and lists them.
rule cache_prompts:
    input:
        resources=rules.fetch.output.resources,
        prompts=rules.prompts.output.prompts,
    output:
        part="results/{experiment}/prompts/activations/part-0.parquet",
        manifest="results/{experiment}/prompts/activations/manifest.json",
    log:
        "results/{experiment}/logs/cache_prompts.log",
    benchmark:
        "results/{experiment}/benchmarks/cache_prompts.tsv"
    conda:
        "../envs/steering.yaml"
    threads: cores
    resources:
        mem_mb=megabytes(16000, model=1.5),
        runtime=minutes(60),
        gpu=gpus,
    params:
        model=model,
        settings=settings("max_tokens", "chat_template", "batch_tokens", "device"),
        code=code("cache_prompts.py"),
    script:
        "../workflow_scripts/cache_prompts.py"


rule encode_features:
    input:
        resources=rules.fetch.output.resources,
        examples=rules.examples.output.examples,
        manifest=rules.activation_manifest.output.manifest,
        layer="results/{experiment}/layer.json",
    output:
        features="results/{experiment}/features.parquet",
        decoder="results/{experiment}/decoder.safetensors",
    log:
        "results/{experiment}/logs/encode_features.log",
    benchmark:
        "results/{experiment}/benchmarks/encode_features.tsv"
    conda:
        "../envs/steering.yaml"
    threads: cores
    resources:
        mem_mb=megabytes(16000, sae=4),
        runtime=minutes(120),
        gpu=gpus,
    params:
        model=model,
        settings=settings("device"),
        code=code("encode_features.py"),
    script:
        "../workflow_scripts/encode_features.py"
