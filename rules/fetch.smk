# The only stages that use the network, and the table of texts. Everything is pinned, downloaded
# and checked here.
localrules:
    fetch,


rule fetch:
    input:
        local_sources,
        # Only checked: an edit of it, or another number of prompts, pins nothing anew.
        concept=lambda wildcards: ancient(experiment(wildcards).task.concept),
    output:
        resources="results/{experiment}/resources.json",
        dataset="results/{experiment}/dataset.parquet",
    log:
        "results/{experiment}/logs/fetch.log",
    benchmark:
        "results/{experiment}/benchmarks/fetch.tsv"
    retries: 0  # it tries again by itself, where that can help
    conda:
        "../envs/steering.yaml"
    params:
        model=model,
        task=task,
        settings=settings("layer", "layers", "max_tokens", "new_tokens"),
        # The rows and their lengths are checked before the weights are here.
        examples=checked(settings(*EXAMPLE_SETTINGS)),
        code=code("fetch.py"),
    script:
        "../workflow_scripts/fetch.py"


rule examples:
    input:
        resources=rules.fetch.output.resources,
        dataset=rules.fetch.output.dataset,
        concept=lambda wildcards: experiment(wildcards).task.concept,
    output:
        examples="results/{experiment}/examples.parquet",
        summary="results/{experiment}/examples.json",
    log:
        "results/{experiment}/logs/examples.log",
    benchmark:
        "results/{experiment}/benchmarks/examples.tsv"
    conda:
        "../envs/steering.yaml"
    params:
        model=model,
        task=task,
        settings=settings(*EXAMPLE_SETTINGS),
        code=code("examples.py"),
    script:
        "../workflow_scripts/examples.py"
