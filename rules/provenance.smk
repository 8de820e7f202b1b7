# Code, configuration, revisions and versions behind the products of an experiment.
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
    group:
        "tables"
    conda:
        "../envs/steering.yaml"
    resources:
        mem_mb=megabytes(2000),
        runtime=minutes(15),
    params:
        config=resolved,
        codes=lambda wildcards: {script: code(script) for script in SCRIPTS},
        code=code("provenance.py"),
    script:
        "../workflow_scripts/provenance.py"
