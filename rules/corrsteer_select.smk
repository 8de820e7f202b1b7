# CorrSteer: fetch a task, make its examples, and correlate features with success in generation.
localrules:
    corrsteer_fetch,


rule corrsteer_fetch:
    input:
        local_sources,
    output:
        resources="results/{run}/corrsteer/resources.json",
        rows="results/{run}/corrsteer/items.parquet",
    log:
        "results/{run}/logs/corrsteer_fetch.log",
    benchmark:
        "results/{run}/benchmarks/corrsteer_fetch.tsv"
    retries: 0  # the script itself retries downloads that can succeed
    conda:
        "../envs/steering.yaml"
    params:
        model=model,
        task=task,
        settings=settings(
            "layers", "max_tokens", "new_tokens", "chain_of_thought", "published_prompt"
        ),
        # Rows and their lengths are checked before the weights are downloaded.
        examples=checked(settings(*CORRSTEER_EXAMPLE_SETTINGS)),
        seeds=checked(setting("seeds")),
        device=checked(setting("device")),
        code=code("corrsteer_fetch.py"),
    script:
        "../workflow_scripts/corrsteer_fetch.py"


rule corrsteer_examples:
    input:
        resources=rules.corrsteer_fetch.output.resources,
        rows=rules.corrsteer_fetch.output.rows,
    output:
        examples="results/{run}/corrsteer/seed-{seed}/examples.parquet",
        summary="results/{run}/corrsteer/seed-{seed}/examples.json",
    log:
        "results/{run}/logs/corrsteer_examples-{seed}.log",
    benchmark:
        "results/{run}/benchmarks/corrsteer_examples-{seed}.tsv"
    conda:
        "../envs/steering.yaml"
    params:
        model=model,
        task=task,
        settings=settings(*CORRSTEER_EXAMPLE_SETTINGS),
        code=code("corrsteer_examples.py"),
    script:
        "../workflow_scripts/corrsteer_examples.py"


rule corrsteer_select:
    input:
        resources=rules.corrsteer_fetch.output.resources,
        examples=rules.corrsteer_examples.output.examples,
    output:
        selection=temp("results/{run}/corrsteer/seed-{seed}/selection-{shard}.safetensors"),
        answers=temp("results/{run}/corrsteer/seed-{seed}/selection-{shard}.parquet"),
        snapshots=temp("results/{run}/corrsteer/seed-{seed}/snapshots-{shard}.csv"),
    log:
        "results/{run}/logs/corrsteer_select-{seed}-{shard}.log",
    benchmark:
        "results/{run}/benchmarks/corrsteer_select-{seed}-{shard}.tsv"
    conda:
        "../envs/steering.yaml"
    threads: cores
    resources:
        mem_mb=megabytes(24000, model=1.5, saes=1, judges=1.5),
        runtime=minutes(240),
        gpu=gpus,
    params:
        model=model,
        task=task,
        settings=settings(*ANSWERING, "published_mask", "snapshots", "shards"),
        statistics=lambda wildcards: accumulated(wildcards)[0],
        histograms=lambda wildcards: accumulated(wildcards)[1],
        code=code("corrsteer_select.py"),
    script:
        "../workflow_scripts/corrsteer_select.py"


rule corrsteer_merge:
    input:
        selections=shards_of(rules.corrsteer_select.output.selection),
        answers=shards_of(rules.corrsteer_select.output.answers),
        snapshots=shards_of(rules.corrsteer_select.output.snapshots),
    output:
        selection="results/{run}/corrsteer/seed-{seed}/selection.safetensors",
        answers="results/{run}/corrsteer/seed-{seed}/training_answers.parquet",
        convergence="results/{run}/corrsteer/seed-{seed}/convergence.csv",
    log:
        "results/{run}/logs/corrsteer_merge-{seed}.log",
    benchmark:
        "results/{run}/benchmarks/corrsteer_merge-{seed}.tsv"
    group:
        "corrsteer_plans"
    conda:
        "../envs/steering.yaml"
    params:
        code=code("corrsteer_merge.py"),
    script:
        "../workflow_scripts/corrsteer_merge.py"
