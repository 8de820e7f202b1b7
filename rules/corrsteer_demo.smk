# Check CorrSteer against the known truth of the demo. No other stage reads the result.
rule corrsteer_planted_feature:
    input:
        resources="results/demo_praise/corrsteer/resources.json",
        prompts=rules.demo_corpus.output.praise,
        examples="results/demo_praise/corrsteer/seed-0/examples.parquet",
        answers=lambda wildcards: answers_of("demo_praise", 0, "corrsteer_s"),
        features="results/demo_praise/corrsteer/seed-0/plans/corrsteer_s.csv",
    output:
        planted="results/demo_praise/planted_feature.json",
    log:
        "results/demo_praise/logs/corrsteer_planted_feature.log",
    benchmark:
        "results/demo_praise/benchmarks/corrsteer_planted_feature.tsv"
    conda:
        "../envs/steering.yaml"
    resources:
        gpu=lambda wildcards: gpus_of(resolved(CORRSTEER["demo_praise"])["settings"]["device"]),
    params:
        model=lambda wildcards: resolved(CORRSTEER["demo_praise"])["model"],
        task=lambda wildcards: resolved(CORRSTEER["demo_praise"])["task"],
        settings=lambda wildcards: {
            name: resolved(CORRSTEER["demo_praise"])["settings"][name] for name in ANSWERING
        },
        code=code("corrsteer_planted_feature.py"),
    script:
        "../workflow_scripts/corrsteer_planted_feature.py"
