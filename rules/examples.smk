# Dataset and concept texts to one table with splits, written once.
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
    resources:
        mem_mb=megabytes(4000),
        runtime=minutes(30),
    params:
        model=model,
        task=task,
        settings=settings(*EXAMPLE_SETTINGS),
        code=code("examples.py"),
    script:
        "../workflow_scripts/examples.py"
