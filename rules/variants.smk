# Other limits, other goals and one vector for all, beside the plain programs.
rule solve_variants:
    input:
        decoder=rules.encode_features.output.decoder,
        features=rules.encode_features.output.features,
        resources=rules.fetch.output.resources,
        examples=rules.examples.output.examples,
        manifest=rules.activation_manifest.output.manifest,
        layer=rules.pick_layer.output.layer,
        probe=rules.fit_probes.output.probe,
        evaluation_probe=rules.fit_probes.output.evaluation_probe,
    output:
        solutions="results/{experiment}/variant_solutions.parquet",
    log:
        "results/{experiment}/logs/solve_variants.log",
    benchmark:
        "results/{experiment}/benchmarks/solve_variants.tsv"
    conda:
        "../envs/steering.yaml"
    threads: 2
    resources:
        mem_mb=megabytes(16000),
        runtime=minutes(240),
    params:
        target_class=lambda wildcards: experiment(wildcards).task.target_class,
        settings=settings(
            "seed",
            "variants",
            "variant_rows",
            "variant_tau",
            "variant_lambda",
            "variant_epsilon",
            "cone_solver",
            "prefilter_features",
            "box_factor",
            "subspace_components",
            "subspace_directions",
        ),
        code=code("solve_variants.py"),
    script:
        "../workflow_scripts/solve_variants.py"


rule variants_table:
    input:
        solutions=rules.solve_variants.output.solutions,
        probes=rules.fit_probes.output.report,
    output:
        table="results/{experiment}/variants.csv",
        figure=report(
            "results/{experiment}/variants.svg",
            caption="report/variants.rst",
            category="{experiment}",
            labels={"what": "variants of the programs"},
        ),
    log:
        "results/{experiment}/logs/variants_table.log",
    benchmark:
        "results/{experiment}/benchmarks/variants_table.tsv"
    group:
        "tables"
    conda:
        "../envs/steering.yaml"
    resources:
        mem_mb=megabytes(2000),
        runtime=minutes(15),
    params:
        settings=settings("seed", "bootstrap_resamples"),
        code=code("variants_table.py"),
    script:
        "../workflow_scripts/variants_table.py"
