# Pick the layer to steer, correlate features with the label, and fit the two probes.


rule pick_layer:
    input:
        resources=rules.fetch.output.resources,
        sweep=lambda wildcards: (
            expand(rules.sweep_layers.output.sweep, experiment=wildcards.experiment)
            if experiment(wildcards).settings.layer == "auto"
            else []
        ),
        effect=lambda wildcards: (
            expand(rules.layer_effect.output.table, experiment=wildcards.experiment)
            if experiment(wildcards).settings.layer == "effect"
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
    params:
        settings=settings("layer"),
        code=code("pick_layer.py"),
    script:
        "../workflow_scripts/pick_layer.py"


rule correlate_features:
    input:
        examples=rules.examples.output.examples,
        features=rules.encode_features.output.features,
    output:
        correlation="results/{experiment}/correlation.safetensors",
    log:
        "results/{experiment}/logs/correlate_features.log",
    benchmark:
        "results/{experiment}/benchmarks/correlate_features.tsv"
    group:
        "fits"
    conda:
        "../envs/steering.yaml"
    resources:
        mem_mb=megabytes(8000, sae=3),
        runtime=minutes(60),
    params:
        code=code("correlate_features.py"),
    script:
        "../workflow_scripts/correlate_features.py"


rule fit_probes:
    input:
        resources=rules.fetch.output.resources,
        examples=rules.examples.output.examples,
        manifest=rules.activation_manifest.output.manifest,
        layer=rules.pick_layer.output.layer,
    output:
        probe="results/{experiment}/probe.safetensors",
        evaluation_probe="results/{experiment}/evaluation_probe.safetensors",
        report="results/{experiment}/probes.json",
    log:
        "results/{experiment}/logs/fit_probes.log",
    benchmark:
        "results/{experiment}/benchmarks/fit_probes.tsv"
    group:
        "fits"
    conda:
        "../envs/steering.yaml"
    threads: cores
    resources:
        mem_mb=megabytes(8000, sae=3),
        runtime=minutes(60),
    params:
        settings=settings("seed", "probe_folds", "probe_regularisation"),
        code=code("fit_probes.py"),
    script:
        "../workflow_scripts/fit_probes.py"
