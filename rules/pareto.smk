# Make pareto.csv, one row per method and strength, and record which code and configuration made it.
rule provenance:
    input:
        resources=rules.fetch.output.resources,
        files=own_files,
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
    params:
        name=lambda wildcards: wildcards.experiment,
        config=config_behind,
        codes=codes_behind,
        code=code("provenance.py"),
    script:
        "../workflow_scripts/provenance.py"


rule pareto:
    input:
        provenance=rules.provenance.output.provenance,
        layer=rules.pick_layer.output.layer,
        probes=rules.fit_probes.output.report,
        solutions=all_solutions_and_prompts,
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
    params:
        model=model,
        task=task,
        task_name=lambda wildcards: experiment(wildcards).task_name,
        settings=settings("seed", "methods", "bootstrap_resamples", "selection_kl", "draws"),
        plans=plans,
        code=code("pareto.py"),
    script:
        "../workflow_scripts/pareto.py"
