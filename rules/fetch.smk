# Fetch what an experiment needs, and make its tables of texts: examples and prompts. Only fetch
# stages use the network: they pin, download and check everything. Judges behind a server are asked
# later.
localrules:
    fetch,


rule fetch:
    input:
        local_sources,
        # `ancient`: the concept is only checked here, so editing it does not repeat the download.
        concept=lambda wildcards: ancient(experiment(wildcards).task.concept),
    output:
        resources="results/{experiment}/resources.json",
        dataset=DATASET,
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
        settings=settings("layer", "layers", "effect_layers", "max_tokens"),
        # Rows, prompts and their lengths are checked before the weights are downloaded.
        examples=checked(settings(*EXAMPLE_SETTINGS, *PROMPT_SETTINGS, "new_tokens")),
        device=checked(setting("device")),
        code=code("fetch.py"),
    script:
        "../workflow_scripts/fetch.py"


rule examples:
    input:
        resources=rules.fetch.output.resources,
        dataset=rules.fetch.output.dataset,
        # `ancient`: the parameters say what of the concept matters here.
        concept=lambda wildcards: ancient(experiment(wildcards).task.concept),
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
        concept=concept_texts("contrast", "personas", "queries"),
        left_out=prompts_left_out,
        code=code("examples.py"),
    script:
        "../workflow_scripts/examples.py"


# The prompts have a table of their own: other prompts leave all that is fitted on examples alone.
rule prompts:
    input:
        resources=rules.fetch.output.resources,
        concept=lambda wildcards: ancient(experiment(wildcards).task.concept),
    output:
        prompts="results/{experiment}/prompts.parquet",
    log:
        "results/{experiment}/logs/prompts.log",
    benchmark:
        "results/{experiment}/benchmarks/prompts.tsv"
    conda:
        "../envs/steering.yaml"
    params:
        model=model,
        settings=settings(*PROMPT_SETTINGS),
        concept=concept_texts("prompts", "validation_prompts"),
        new_tokens=checked(setting("new_tokens")),
        code=code("prompts.py"),
    script:
        "../workflow_scripts/prompts.py"
