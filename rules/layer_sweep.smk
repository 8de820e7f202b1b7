# The layer sweep: fetch the SAE of every layer, fit a probe there and measure how well the two are
# aligned. Only `layer: auto` and the picture of the sweep use the result.
localrules:
    fetch_sweep,


rule fetch_sweep:
    input:
        resources=rules.fetch.output.resources,
    output:
        resources="results/{experiment}/sweep_resources.json",
    log:
        "results/{experiment}/logs/fetch_sweep.log",
    benchmark:
        "results/{experiment}/benchmarks/fetch_sweep.tsv"
    retries: 0  # the script itself retries downloads that can succeed
    conda:
        "../envs/steering.yaml"
    params:
        model=model,
        code=code("fetch_sweep.py"),
    script:
        "../workflow_scripts/fetch_sweep.py"


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
    threads: cores
    resources:
        mem_mb=megabytes(16000, sae=6),
        runtime=minutes(240),
    params:
        model=model,
        settings=settings("seed", "probe_folds", "probe_regularisation"),
        code=code("sweep_layers.py"),
    script:
        "../workflow_scripts/sweep_layers.py"
