# Digests of all that an experiment delivers.
#: Scripts of the rules that only a picture, a page or a table beside pareto.csv comes from.
PRODUCT_SCRIPTS = [
    "features_page.py",
    "fetch_sweep.py",
    "frontier_figure.py",
    "generations_page.py",
    "norm_matched.py",
    "pareto_figure.py",
    "products.py",
    "solve_variants.py",
    "sweep_figure.py",
    "sweep_layers.py",
    "variants_table.py",
]


rule products:
    input:
        provenance=rules.provenance.output.provenance,
        products=lambda wildcards: [
            f"results/{wildcards.experiment}/{product}"
            for product in [*PRODUCTS, *BESIDE]
            if product != "products.json"
        ],
    output:
        digests="results/{experiment}/products.json",
    log:
        "results/{experiment}/logs/products.log",
    benchmark:
        "results/{experiment}/benchmarks/products.tsv"
    group:
        "tables"
    conda:
        "../envs/steering.yaml"
    resources:
        mem_mb=megabytes(2000),
        runtime=minutes(15),
    params:
        codes={script: code(script) for script in PRODUCT_SCRIPTS},
        code=code("products.py"),
    script:
        "../workflow_scripts/products.py"
