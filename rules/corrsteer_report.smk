# CorrSteer: the table and page of one experiment, and the origin of its numbers.
localrules:
    corrsteer,


#: Rule files whose scripts contribute to a CorrSteer result.
CORRSTEER_RULES = ["corrsteer_select", "corrsteer_answer", "corrsteer_report"]


rule corrsteer:
    input:
        expand(
            "results/{run}/{product}",
            run=[name for name in CORRSTEER if name not in ELSEWHERE],
            product=["corrsteer.csv", "provenance.json"],
        ),


rule corrsteer_report:
    input:
        answers=lambda wildcards: [
            answers_of(wildcards.run, seed, method)
            for seed in experiment(wildcards).settings.seeds
            for method in arms_of(wildcards.run)
        ],
        summaries=lambda wildcards: expand(
            rules.corrsteer_examples.output.summary,
            run=wildcards.run,
            seed=CORRSTEER[wildcards.run].settings.seeds,
        ),
    output:
        table="results/{run}/corrsteer.csv",
        page=report(
            "results/{run}/corrsteer_changes.html",
            caption="report/corrsteer_changes.rst",
            category="{run}",
            labels={"what": "what steering changed"},
        ),
    log:
        "results/{run}/logs/corrsteer_report.log",
    benchmark:
        "results/{run}/benchmarks/corrsteer_report.tsv"
    group:
        "corrsteer_report"
    conda:
        "../envs/steering.yaml"
    params:
        seeds=setting("seeds"),
        arms=lambda wildcards: arms_of(wildcards.run),
        settings=settings("bootstrap_resamples"),
        code=code("corrsteer_report.py"),
    script:
        "../workflow_scripts/corrsteer_report.py"


rule corrsteer_provenance:
    input:
        resources=rules.corrsteer_fetch.output.resources,
        products=[rules.corrsteer_report.output.table, rules.corrsteer_report.output.page],
    output:
        provenance="results/{run}/provenance.json",
    log:
        "results/{run}/logs/corrsteer_provenance.log",
    benchmark:
        "results/{run}/benchmarks/corrsteer_provenance.tsv"
    group:
        "corrsteer_report"
    conda:
        "../envs/steering.yaml"
    params:
        name=lambda wildcards: wildcards.run,
        config=lambda wildcards: resolved(experiment(wildcards)),
        codes=lambda wildcards: codes_of(*CORRSTEER_RULES),
        code=code("provenance.py"),
    script:
        "../workflow_scripts/provenance.py"
