# The only stage that uses the network: everything is pinned, downloaded and checked here.
localrules:
    fetch,
    fetch_sweep,


rule fetch:
    input:
        local_sources,
        # Only checked: an edit of it, or another number of prompts, pins nothing anew.
        concept=checked_concept,
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


rule fetch_sweep:
    input:
        resources=rules.fetch.output.resources,
    output:
        resources="results/{experiment}/sweep_resources.json",
    log:
        "results/{experiment}/logs/fetch_sweep.log",
    benchmark:
        "results/{experiment}/benchmarks/fetch_sweep.tsv"
    retries: 0  # it tries again by itself, where that can help
    conda:
        "../envs/steering.yaml"
    params:
        model=model,
        code=code("fetch_sweep.py"),
    script:
        "../workflow_scripts/fetch_sweep.py"
