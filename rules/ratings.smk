# A language model behind a server rates every completion on the scales of AxBench, if it is a judge of
# the task; and the table over the concepts of a set.
localrules:
    axbench_table,


rule rate:
    input:
        generations=methods_of(rules.generate.output.generations),
        solutions=all_solutions_and_prompts,
    output:
        ratings="results/{experiment}/ratings.parquet",
    log:
        "results/{experiment}/logs/rate.log",
    benchmark:
        "results/{experiment}/benchmarks/rate.tsv"
    conda:
        "../envs/steering.yaml"
    params:
        judges=lambda wildcards: [judge.model_dump() for judge in experiment(wildcards).task.judges],
        target_class=target_class,
        asked=judge_asked("rate"),
        code=code("rate.py"),
    script:
        "../workflow_scripts/rate.py"


rule ratings_table:
    input:
        ratings=rules.rate.output.ratings,
    output:
        table="results/{experiment}/ratings.csv",
    log:
        "results/{experiment}/logs/ratings_table.log",
    benchmark:
        "results/{experiment}/benchmarks/ratings_table.tsv"
    group:
        "tables"
    conda:
        "../envs/steering.yaml"
    params:
        settings=settings("seed", "bootstrap_resamples"),
        code=code("ratings_table.py"),
    script:
        "../workflow_scripts/ratings_table.py"


rule axbench_table:
    input:
        ratings=lambda wildcards: expand(
            rules.rate.output.ratings, experiment=CONCEPT_SETS[wildcards.concept_set]
        ),
        published=workflow.source_path("../resources/published/axbench.csv"),
    output:
        table="results/tables/axbench_{concept_set}.csv",
    log:
        "results/tables/logs/axbench_table-{concept_set}.log",
    benchmark:
        "results/tables/benchmarks/axbench_table-{concept_set}.tsv"
    conda:
        "../envs/steering.yaml"
    params:
        experiments=lambda wildcards: CONCEPT_SETS[wildcards.concept_set],
        settings=lambda wildcards: {
            name: getattr(
                checked_experiment(CONCEPT_SETS[wildcards.concept_set][0], repr(config)).settings,
                name,
            )
            for name in ("seed", "bootstrap_resamples")
        },
        code=code("axbench_table.py"),
    script:
        "../workflow_scripts/axbench_table.py"
