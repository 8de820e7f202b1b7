# Train SAEs for a model: `sae: {train: …}` in its section. One pass caches the activations of all
# layers. Each layer is a job of its own, so one that is killed starts again without the others, and
# another layer in the list does not train the others again.
localrules:
    fetch_training,


rule fetch_training:
    input:
        training_sources,
    output:
        resources="results/models/{model}/resources.json",
        texts="results/models/{model}/texts.parquet",
    log:
        "results/models/{model}/logs/fetch_training.log",
    benchmark:
        "results/models/{model}/benchmarks/fetch_training.tsv"
    retries: 0  # the script itself retries downloads that can succeed
    conda:
        "../envs/steering.yaml"
    params:
        model=trained_model,
        training=training("tokens", "texts", "max_tokens", "seed"),
        # Layers and the sizes of the SAEs are checked here too, before any download.
        whole=checked(lambda wildcards: TRAINED[wildcards.model].sae.train.model_dump()),
        device=checked(training_device),
        code=code("fetch_training.py"),
    script:
        "../workflow_scripts/fetch_training.py"


rule cache_training_activations:
    input:
        resources=rules.fetch_training.output.resources,
        texts=rules.fetch_training.output.texts,
    output:
        part=temp("results/models/{model}/activations/part-0.parquet"),
        manifest="results/models/{model}/activations/manifest.json",
    log:
        "results/models/{model}/logs/cache_training_activations.log",
    benchmark:
        "results/models/{model}/benchmarks/cache_training_activations.tsv"
    conda:
        "../envs/steering.yaml"
    threads: 2
    resources:
        mem_mb=megabytes(16000),
        runtime=minutes(240),
        gpu=gpus_for_training,
    params:
        model=trained_model,
        training=training("layers", "max_tokens", "batch_tokens"),
        device=training_device,
        code=code("cache_training_activations.py"),
    script:
        "../workflow_scripts/cache_training_activations.py"


rule train_sae:
    input:
        resources=rules.fetch_training.output.resources,
        texts=rules.fetch_training.output.texts,
        # When another layer is added, the cache is filled again with the same activations. So only
        # the model and the texts make an SAE stale, and not the age of the cache.
        manifest=ancient(rules.cache_training_activations.output.manifest),
    output:
        sae=directory("results/models/{model}/sparse_autoencoders/layer_{layer}"),
        measured="results/models/{model}/sparse_autoencoders/layer_{layer}.json",
    log:
        "results/models/{model}/logs/train_sae-{layer}.log",
    benchmark:
        "results/models/{model}/benchmarks/train_sae-{layer}.tsv"
    conda:
        "../envs/steering.yaml"
    threads: 2
    resources:
        mem_mb=megabytes(16000),
        runtime=minutes(240),
        gpu=gpus_for_training,
    params:
        model=trained_model,
        training=lambda wildcards: TRAINED[wildcards.model].sae.train.model_dump(exclude={"layers"}),
        device=training_device,
        alone=checked(without_one_layer),
        code=code("train_sae.py"),
        code_of_cache=code("cache_training_activations.py"),
    script:
        "../workflow_scripts/train_sae.py"


rule sae_table:
    input:
        measured=lambda wildcards: expand(
            rules.train_sae.output.measured,
            model=wildcards.model,
            layer=TRAINED[wildcards.model].sae.train.layers,
        ),
        # It is kept until every layer is trained, and only then deleted.
        part=rules.cache_training_activations.output.part,
    output:
        table="results/models/{model}/sparse_autoencoders.csv",
    log:
        "results/models/{model}/logs/sae_table.log",
    benchmark:
        "results/models/{model}/benchmarks/sae_table.tsv"
    conda:
        "../envs/steering.yaml"
    params:
        code=code("sae_table.py"),
    script:
        "../workflow_scripts/sae_table.py"
