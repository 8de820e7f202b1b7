# Directions of the fixed methods, the homotopy path of the programs, and a solve for every input.
rule fit_directions:
    input:
        decoder=rules.encode_features.output.decoder,
        resources=rules.fetch.output.resources,
        examples=rules.examples.output.examples,
        manifest=rules.activation_manifest.output.manifest,
        layer=rules.pick_layer.output.layer,
        correlation=rules.correlate_features.output.correlation,
    output:
        directions="results/{experiment}/directions.safetensors",
    log:
        "results/{experiment}/logs/fit_directions.log",
    benchmark:
        "results/{experiment}/benchmarks/fit_directions.tsv"
    group:
        "fits"
    conda:
        "../envs/steering.yaml"
    resources:
        mem_mb=megabytes(8000),
        runtime=minutes(60),
    params:
        target_class=lambda wildcards: experiment(wildcards).task.target_class,
        settings=settings("seed", "methods", "topk"),
        code=code("fit_directions.py"),
    script:
        "../workflow_scripts/fit_directions.py"


rule solve:
    input:
        decoder=rules.encode_features.output.decoder,
        resources=rules.fetch.output.resources,
        examples=rules.examples.output.examples,
        manifest=rules.activation_manifest.output.manifest,
        layer=rules.pick_layer.output.layer,
        probe=rules.fit_probes.output.probe,
        directions=rules.fit_directions.output.directions,
    output:
        path="results/{experiment}/path.safetensors",
        solutions="results/{experiment}/solutions.parquet",
    log:
        "results/{experiment}/logs/solve.log",
    benchmark:
        "results/{experiment}/benchmarks/solve.tsv"
    conda:
        "../envs/steering.yaml"
    threads: 2
    resources:
        mem_mb=megabytes(16000),
        runtime=minutes(240),
    params:
        target_class=lambda wildcards: experiment(wildcards).task.target_class,
        settings=settings(
            "methods",
            "strengths",
            "topk",
            "qp_tau",
            "qp_lambda",
            "socp_tau",
            "socp_epsilon",
        ),
        code=code("solve.py"),
    script:
        "../workflow_scripts/solve.py"
