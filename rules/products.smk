# The other results of an experiment: pictures, pages, the comparison at equal norm, the variants of
# the programs, and the digests of all results.


rule pareto_figure:
    input:
        pareto=rules.pareto.output.pareto,
    output:
        figure=report(
            "results/{experiment}/pareto.svg",
            caption="report/pareto.rst",
            category="{experiment}",
            labels={"what": "Pareto frontier"},
        ),
        page=report(
            "results/{experiment}/pareto.html",
            caption="report/pareto.rst",
            category="{experiment}",
            labels={"what": "Pareto frontier, to explore"},
        ),
    log:
        "results/{experiment}/logs/pareto_figure.log",
    benchmark:
        "results/{experiment}/benchmarks/pareto_figure.tsv"
    group:
        "tables"
    conda:
        "../envs/steering.yaml"
    params:
        code=code("pareto_figure.py"),
    script:
        "../workflow_scripts/pareto_figure.py"


rule sweep_figure:
    input:
        sweep=rules.sweep_layers.output.sweep,
        layer=rules.pick_layer.output.layer,
    output:
        figure=report(
            "results/{experiment}/sweep.svg",
            caption="report/sweep.rst",
            category="{experiment}",
            labels={"what": "layer sweep"},
        ),
    log:
        "results/{experiment}/logs/sweep_figure.log",
    benchmark:
        "results/{experiment}/benchmarks/sweep_figure.tsv"
    group:
        "tables"
    conda:
        "../envs/steering.yaml"
    params:
        code=code("sweep_figure.py"),
    script:
        "../workflow_scripts/sweep_figure.py"


rule generations_page:
    input:
        pareto=rules.pareto.output.pareto,
        prompts=rules.prompts.output.prompts,
        generations=methods_of(rules.generate.output.generations),
        judged=rules.judge.output.judged,
        probes=rules.fit_probes.output.report,
    output:
        page=report(
            "results/{experiment}/generations.html",
            caption="report/generations.rst",
            category="{experiment}",
            labels={"what": "texts side by side"},
        ),
    log:
        "results/{experiment}/logs/generations_page.log",
    benchmark:
        "results/{experiment}/benchmarks/generations_page.tsv"
    group:
        "tables"
    conda:
        "../envs/steering.yaml"
    params:
        target_class=target_class,
        classifier=lambda wildcards: task(wildcards)["classifier"],
        code=code("generations_page.py"),
    script:
        "../workflow_scripts/generations_page.py"


rule features_page:
    input:
        decoder=rules.encode_features.output.decoder,
        resources=rules.fetch.output.resources,
        layer=rules.pick_layer.output.layer,
        correlation=rules.correlate_features.output.correlation,
        probe=rules.fit_probes.output.probe,
        probes=rules.fit_probes.output.report,
        solutions=all_solutions,
        paths=all_paths,
    output:
        page=report(
            "results/{experiment}/features.html",
            caption="report/features.rst",
            category="{experiment}",
            labels={"what": "top features"},
        ),
        table="results/{experiment}/features.csv",
    log:
        "results/{experiment}/logs/features_page.log",
    benchmark:
        "results/{experiment}/benchmarks/features_page.tsv"
    group:
        "tables"
    conda:
        "../envs/steering.yaml"
    resources:
        mem_mb=megabytes(8000, sae=3),
        runtime=minutes(30),
    params:
        target_class=target_class,
        code=code("features_page.py"),
    script:
        "../workflow_scripts/features_page.py"


rule frontier_figure:
    input:
        paths=all_paths,
        solutions=all_solutions,
    output:
        figure=report(
            "results/{experiment}/frontier.svg",
            caption="report/frontier.rst",
            category="{experiment}",
            labels={"what": "exact frontier of the programs"},
        ),
        table="results/{experiment}/frontier.csv",
        knots="results/{experiment}/frontier_knots.csv",
    log:
        "results/{experiment}/logs/frontier_figure.log",
    benchmark:
        "results/{experiment}/benchmarks/frontier_figure.tsv"
    group:
        "tables"
    conda:
        "../envs/steering.yaml"
    params:
        code=code("frontier_figure.py"),
    script:
        "../workflow_scripts/frontier_figure.py"


rule norm_matched:
    input:
        resources=rules.fetch.output.resources,
        examples=rules.examples.output.examples,
        manifest=rules.activation_manifest.output.manifest,
        layer=rules.pick_layer.output.layer,
        paths=all_paths,
        solutions=all_solutions,
        directions=rules.fit_directions.output.directions,
        probes=rules.fit_probes.output.report,
        evaluation_probe=rules.fit_probes.output.evaluation_probe,
    output:
        table="results/{experiment}/norm_matched.csv",
    log:
        "results/{experiment}/logs/norm_matched.log",
    benchmark:
        "results/{experiment}/benchmarks/norm_matched.tsv"
    group:
        "tables"
    conda:
        "../envs/steering.yaml"
    resources:
        mem_mb=megabytes(8000, sae=3),
        runtime=minutes(30),
    params:
        target_class=target_class,
        settings=settings("seed", "methods", "bootstrap_resamples"),
        code=code("norm_matched.py"),
    script:
        "../workflow_scripts/norm_matched.py"


rule norm_matched_figure:
    input:
        table=rules.norm_matched.output.table,
        pareto=rules.pareto.output.pareto,
    output:
        figure=report(
            "results/{experiment}/norm_matched.svg",
            caption="report/norm_matched.rst",
            category="{experiment}",
            labels={"what": "programs and directions at equal norm"},
        ),
    log:
        "results/{experiment}/logs/norm_matched_figure.log",
    benchmark:
        "results/{experiment}/benchmarks/norm_matched_figure.tsv"
    group:
        "tables"
    conda:
        "../envs/steering.yaml"
    params:
        code=code("norm_matched_figure.py"),
    script:
        "../workflow_scripts/norm_matched_figure.py"


rule experiment_page:
    input:
        pareto=rules.pareto.output.pareto,
        verdict=results_made("verdict.json"),
        summary=results_made("summary.csv"),
        norm_matched=rules.norm_matched.output.table,
        pictures=page_pictures,
        prompts=rules.prompts.output.prompts,
        generations=methods_of(rules.generate.output.generations),
        judged=rules.judge.output.judged,
        provenance=rules.provenance.output.provenance,
    output:
        page=report(
            "results/{experiment}/index.html",
            caption="report/index.rst",
            category="{experiment}",
            # The report sorts by label: this one is first.
            labels={"what": "(start here) what was found"},
        ),
    log:
        "results/{experiment}/logs/experiment_page.log",
    benchmark:
        "results/{experiment}/benchmarks/experiment_page.tsv"
    group:
        "last"
    conda:
        "../envs/steering.yaml"
    params:
        target_class=target_class,
        target=target_in_words,
        classifier=lambda wildcards: task(wildcards)["classifier"],
        results=other_results,
        exports=exported_methods,
        code=code("experiment_page.py"),
    script:
        "../workflow_scripts/experiment_page.py"


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
    threads: cores
    resources:
        mem_mb=megabytes(16000, sae=6),
        runtime=minutes(240),
    params:
        target_class=target_class,
        settings=settings(
            "seed",
            "variants",
            "variant_rows",
            "units",
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
    params:
        settings=settings("seed", "bootstrap_resamples"),
        code=code("variants_table.py"),
    script:
        "../workflow_scripts/variants_table.py"


rule products:
    input:
        provenance=rules.provenance.output.provenance,
        products=lambda wildcards: [
            f"results/{wildcards.experiment}/{product}"
            for product in [*PRODUCTS, *BESIDE, *further_results(wildcards)]
            if product != "products.json"
        ],
    output:
        digests="results/{experiment}/products.json",
    log:
        "results/{experiment}/logs/products.log",
    benchmark:
        "results/{experiment}/benchmarks/products.tsv"
    group:
        "last"
    conda:
        "../envs/steering.yaml"
    params:
        codes=product_codes,
        code=code("products.py"),
    script:
        "../workflow_scripts/products.py"
