# One row per (method, strength), and things to look at.
rule pareto:
    input:
        provenance=rules.provenance.output.provenance,
        layer=rules.pick_layer.output.layer,
        probes=rules.fit_probes.output.report,
        solutions=all_solutions,
        effects=rules.probe_effects.output.effects,
        divergence=methods_of(rules.divergence.output.divergence),
        judged=rules.judge.output.judged,
    output:
        pareto="results/{experiment}/pareto.csv",
    log:
        "results/{experiment}/logs/pareto.log",
    benchmark:
        "results/{experiment}/benchmarks/pareto.tsv"
    group:
        "tables"
    conda:
        "../envs/steering.yaml"
    resources:
        mem_mb=megabytes(2000),
        runtime=minutes(15),
    params:
        model=model,
        task=task,
        task_name=lambda wildcards: experiment(wildcards).task_name,
        settings=settings("seed", "methods", "bootstrap_resamples", "selection_kl"),
        code=code("pareto.py"),
    script:
        "../workflow_scripts/pareto.py"


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
    log:
        "results/{experiment}/logs/pareto_figure.log",
    benchmark:
        "results/{experiment}/benchmarks/pareto_figure.tsv"
    group:
        "tables"
    conda:
        "../envs/steering.yaml"
    resources:
        mem_mb=megabytes(2000),
        runtime=minutes(15),
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
    resources:
        mem_mb=megabytes(2000),
        runtime=minutes(15),
    params:
        code=code("sweep_figure.py"),
    script:
        "../workflow_scripts/sweep_figure.py"


rule generations_page:
    input:
        examples=rules.examples.output.examples,
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
    resources:
        mem_mb=megabytes(2000),
        runtime=minutes(15),
    params:
        target_class=lambda wildcards: experiment(wildcards).task.target_class,
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
        mem_mb=megabytes(8000),
        runtime=minutes(30),
    params:
        target_class=lambda wildcards: experiment(wildcards).task.target_class,
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
    resources:
        mem_mb=megabytes(2000),
        runtime=minutes(15),
    params:
        code=code("frontier_figure.py"),
    script:
        "../workflow_scripts/frontier_figure.py"


# Needs no language model: what a vector of the same norm does to the evaluation probe.
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
        mem_mb=megabytes(8000),
        runtime=minutes(30),
    params:
        target_class=lambda wildcards: experiment(wildcards).task.target_class,
        settings=settings("seed", "methods", "bootstrap_resamples"),
        code=code("norm_matched.py"),
    script:
        "../workflow_scripts/norm_matched.py"
