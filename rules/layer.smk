# Where to steer: the layer sweep, and the layer that is used.
rule sweep_layers:
    input:
        resources=rules.fetch_sweep.output.resources,
        examples=rules.examples.output.examples,
        manifest=rules.activation_manifest.output.manifest,
    output:
        sweep="results/{experiment}/sweep.csv",
    log:
        "results/{experiment}/logs/sweep_layers.log",
    benchmark:
        "results/{experiment}/benchmarks/sweep_layers.tsv"
    group:
        "layer"
    conda:
        "../envs/steering.yaml"
    threads: 2
    resources:
        mem_mb=megabytes(16000),
        runtime=minutes(240),
    params:
        model=model,
        settings=settings("seed", "probe_folds", "probe_regularisation"),
        code=code("sweep_layers.py"),
    script:
        "../workflow_scripts/sweep_layers.py"


rule pick_layer:
    input:
        resources=rules.fetch.output.resources,
        sweep=lambda wildcards: (
            expand(rules.sweep_layers.output.sweep, experiment=wildcards.experiment)
            if experiment(wildcards).settings.layer == "auto"
            else []
        ),
    output:
        layer="results/{experiment}/layer.json",
    log:
        "results/{experiment}/logs/pick_layer.log",
    benchmark:
        "results/{experiment}/benchmarks/pick_layer.tsv"
    group:
        "layer"
    conda:
        "../envs/steering.yaml"
    resources:
        mem_mb=megabytes(2000),
        runtime=minutes(15),
    params:
        settings=settings("layer"),
        code=code("pick_layer.py"),
    script:
        "../workflow_scripts/pick_layer.py"
