# Code, configuration, revisions and versions behind the products of an experiment.
#: Scripts of the rules that a product of an experiment comes from.
SCRIPTS = [
    "activation_manifest.py",
    "cache_activations.py",
    "correlate_features.py",
    "divergence.py",
    "encode_features.py",
    "examples.py",
    "features_page.py",
    "fetch.py",
    "fetch_sweep.py",
    "fit_directions.py",
    "fit_probes.py",
    "frontier_figure.py",
    "generate.py",
    "generations_page.py",
    "judge.py",
    "pareto.py",
    "pareto_figure.py",
    "pick_layer.py",
    "probe_effects.py",
    "provenance.py",
    "solve.py",
    "solve_variants.py",
    "sweep_figure.py",
    "sweep_layers.py",
    "variants_table.py",
]


rule provenance:
    input:
        resources=rules.fetch.output.resources,
        products=lambda wildcards: [
            f"results/{wildcards.experiment}/{product}"
            for product in PRODUCTS
            if product != "provenance.json"
        ],
    output:
        provenance="results/{experiment}/provenance.json",
    log:
        "results/{experiment}/logs/provenance.log",
    benchmark:
        "results/{experiment}/benchmarks/provenance.tsv"
    group:
        "tables"
    conda:
        "../envs/steering.yaml"
    resources:
        mem_mb=megabytes(2000),
        runtime=minutes(15),
    params:
        name=lambda wildcards: wildcards.experiment,
        config=resolved,
        codes={script: code(script) for script in SCRIPTS},
        code=code("provenance.py"),
    script:
        "../workflow_scripts/provenance.py"
