# Fetch what an experiment needs, and make its table of texts. Only fetch stages use the network:
# they pin, download and check everything.
localrules:
    fetch,


rule fetch:
    input:
        local_sources,
        # `ancient`: the concept is only checked here, so editing it does not repeat the download.
        concept=lambda wildcards: ancient(experiment(wildcards).task.concept),
    output:
        resources="results/{experiment}/resources.json",
        dataset="results/{experiment}/dataset.parquet",
    log:
        "results/{experiment}/logs/fetch.log",
    benchmark:
        "results/{experiment}/benchmarks/fetch.tsv"
    retries: 0  # the script itself retries downloads that can succeed
    conda:
        "../envs/steering.yaml"
    params:
        model=model,
        task=task,
        settings=settings("layer", "layers", "max_tokens", "new_tokens"),
        # Rows and their lengths are checked before the weights are downloaded.
        examples=checked(settings(*EXAMPLE_SETTINGS)),
        device=checked(setting("device")),
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
