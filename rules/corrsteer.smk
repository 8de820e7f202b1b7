# CorrSteer: select features by correlation with success while generating, steer, evaluate.
localrules:
    corrsteer,
    corrsteer_tables,
    corrsteer_fetch,
    corrsteer_cell,
    corrsteer_table,


rule corrsteer:
    input:
        expand(
            "results/{run}/{product}", run=CORRSTEER, product=["corrsteer.csv", "provenance.json"]
        ),


rule corrsteer_fetch:
    input:
        corrsteer_sources,
    output:
        resources="results/{run}/corrsteer/resources.json",
        rows="results/{run}/corrsteer/items.parquet",
    log:
        "results/{run}/logs/corrsteer_fetch.log",
    benchmark:
        "results/{run}/benchmarks/corrsteer_fetch.tsv"
    retries: 2
    conda:
        "../envs/steering.yaml"
    resources:
        mem_mb=megabytes(4000),
        runtime=minutes(30),
    params:
        model=corrsteer_model,
        task=corrsteer_task,
        settings=corrsteer_settings("layers", "max_tokens", "new_tokens", "published_prompt"),
        code=code("corrsteer_fetch.py"),
    script:
        "../workflow_scripts/corrsteer_fetch.py"


rule corrsteer_examples:
    input:
        resources=rules.corrsteer_fetch.output.resources,
        rows=rules.corrsteer_fetch.output.rows,
    output:
        examples="results/{run}/corrsteer/seed-{seed}/examples.parquet",
        summary="results/{run}/corrsteer/seed-{seed}/examples.json",
    log:
        "results/{run}/logs/corrsteer_examples-{seed}.log",
    benchmark:
        "results/{run}/benchmarks/corrsteer_examples-{seed}.tsv"
    conda:
        "../envs/steering.yaml"
    resources:
        mem_mb=megabytes(4000),
        runtime=minutes(30),
    params:
        model=corrsteer_model,
        task=corrsteer_task,
        settings=corrsteer_settings(
            "train_rows",
            "validation_rows",
            "test_rows",
            "own_test_fraction",
            "validation_share",
            "long_prompts",
            "few_shot",
            "chain_of_thought",
            "chat_template",
        ),
        code=code("corrsteer_examples.py"),
    script:
        "../workflow_scripts/corrsteer_examples.py"


rule corrsteer_select:
    input:
        resources=rules.corrsteer_fetch.output.resources,
        examples=rules.corrsteer_examples.output.examples,
    output:
        selection=temp("results/{run}/corrsteer/seed-{seed}/selection-{shard}.safetensors"),
        answers=temp("results/{run}/corrsteer/seed-{seed}/selection-{shard}.parquet"),
        snapshots=temp("results/{run}/corrsteer/seed-{seed}/snapshots-{shard}.csv"),
    log:
        "results/{run}/logs/corrsteer_select-{seed}-{shard}.log",
    benchmark:
        "results/{run}/benchmarks/corrsteer_select-{seed}-{shard}.tsv"
    conda:
        "../envs/steering.yaml"
    threads: 2
    resources:
        mem_mb=megabytes(24000),
        runtime=minutes(240),
        gpu=corrsteer_gpus,
    params:
        model=corrsteer_model,
        task=corrsteer_task,
        settings=corrsteer_settings(*ANSWERING, "snapshots", "shards"),
        variants=corrsteer_variants(0),
        histograms=corrsteer_variants(1),
        code=code("corrsteer_select.py"),
    script:
        "../workflow_scripts/corrsteer_select.py"


rule corrsteer_merge:
    input:
        selections=corrsteer_shards(rules.corrsteer_select.output.selection),
        answers=corrsteer_shards(rules.corrsteer_select.output.answers),
        snapshots=corrsteer_shards(rules.corrsteer_select.output.snapshots),
    output:
        selection="results/{run}/corrsteer/seed-{seed}/selection.safetensors",
        answers="results/{run}/corrsteer/seed-{seed}/training_answers.parquet",
        convergence="results/{run}/corrsteer/seed-{seed}/convergence.csv",
    log:
        "results/{run}/logs/corrsteer_merge-{seed}.log",
    benchmark:
        "results/{run}/benchmarks/corrsteer_merge-{seed}.tsv"
    group:
        "corrsteer_plans"
    conda:
        "../envs/steering.yaml"
    resources:
        mem_mb=megabytes(4000),
        runtime=minutes(30),
    params:
        code=code("corrsteer_merge.py"),
    script:
        "../workflow_scripts/corrsteer_merge.py"


rule corrsteer_plan:
    input:
        resources=rules.corrsteer_fetch.output.resources,
        selection=rules.corrsteer_merge.output.selection,
    output:
        plan="results/{run}/corrsteer/seed-{seed}/plans/{arm}.safetensors",
        features="results/{run}/corrsteer/seed-{seed}/plans/{arm}.csv",
    log:
        "results/{run}/logs/corrsteer_plan-{seed}-{arm}.log",
    benchmark:
        "results/{run}/benchmarks/corrsteer_plan-{seed}-{arm}.tsv"
    group:
        "corrsteer_plans"
    conda:
        "../envs/steering.yaml"
    resources:
        mem_mb=megabytes(4000),
        runtime=minutes(30),
    params:
        model=corrsteer_model,
        task=corrsteer_task,
        arm=corrsteer_arm,
        settings=corrsteer_settings("keep", "published_site"),
        code=code("corrsteer_plan.py"),
    script:
        "../workflow_scripts/corrsteer_plan.py"


rule corrsteer_validate:
    input:
        resources=rules.corrsteer_fetch.output.resources,
        examples=rules.corrsteer_examples.output.examples,
        plan=corrsteer_plan_of,
    output:
        validation="results/{run}/corrsteer/seed-{seed}/validation/{arm}.csv",
    log:
        "results/{run}/logs/corrsteer_validate-{seed}-{arm}.log",
    benchmark:
        "results/{run}/benchmarks/corrsteer_validate-{seed}-{arm}.tsv"
    conda:
        "../envs/steering.yaml"
    threads: 2
    resources:
        mem_mb=megabytes(24000),
        runtime=minutes(240),
        gpu=corrsteer_gpus,
    params:
        model=corrsteer_model,
        task=corrsteer_task,
        settings=corrsteer_settings(*ANSWERING),
        code=code("corrsteer_validate.py"),
    script:
        "../workflow_scripts/corrsteer_validate.py"


rule corrsteer_answer:
    input:
        unpack(corrsteer_steering),
        resources=rules.corrsteer_fetch.output.resources,
        examples=rules.corrsteer_examples.output.examples,
    output:
        answers="results/{run}/corrsteer/seed-{seed}/answers/{arm}.parquet",
    log:
        "results/{run}/logs/corrsteer_answer-{seed}-{arm}.log",
    benchmark:
        "results/{run}/benchmarks/corrsteer_answer-{seed}-{arm}.tsv"
    conda:
        "../envs/steering.yaml"
    threads: 2
    resources:
        mem_mb=megabytes(24000),
        runtime=minutes(240),
        gpu=corrsteer_gpus,
    params:
        model=corrsteer_model,
        task=corrsteer_task,
        arm=corrsteer_arm,
        settings=corrsteer_settings(*ANSWERING),
        code=code("corrsteer_answer.py"),
    script:
        "../workflow_scripts/corrsteer_answer.py"


rule corrsteer_fine_tune:
    input:
        resources=rules.corrsteer_fetch.output.resources,
        examples=rules.corrsteer_examples.output.examples,
    output:
        answers="results/{run}/corrsteer/seed-{seed}/answers/fine_tuning.parquet",
        training="results/{run}/corrsteer/seed-{seed}/fine_tuning.json",
    log:
        "results/{run}/logs/corrsteer_fine_tune-{seed}.log",
    benchmark:
        "results/{run}/benchmarks/corrsteer_fine_tune-{seed}.tsv"
    conda:
        "../envs/steering.yaml"
    threads: 2
    resources:
        mem_mb=megabytes(24000),
        runtime=minutes(240),
        gpu=corrsteer_gpus,
    params:
        model=corrsteer_model,
        task=corrsteer_task,
        fine_tuning=lambda wildcards: CORRSTEER[wildcards.run].settings.fine_tuning.model_dump(),
        settings=corrsteer_settings(*ANSWERING),
        code=code("corrsteer_fine_tune.py"),
    script:
        "../workflow_scripts/corrsteer_fine_tune.py"


rule corrsteer_bridge:
    input:
        resources=rules.corrsteer_fetch.output.resources,
        examples=rules.corrsteer_examples.output.examples,
        training=rules.corrsteer_merge.output.answers,
        plan=lambda wildcards: expand(
            rules.corrsteer_plan.output.plan,
            run=wildcards.run,
            seed=wildcards.seed,
            arm=CORRSTEER[wildcards.run].settings.bridge.arm,
        )[0],
    output:
        answers="results/{run}/corrsteer/seed-{seed}/answers/{program}.parquet",
    log:
        "results/{run}/logs/corrsteer_bridge-{seed}-{program}.log",
    benchmark:
        "results/{run}/benchmarks/corrsteer_bridge-{seed}-{program}.tsv"
    wildcard_constraints:
        program="convex_optimal|qp_optimal",
    conda:
        "../envs/steering.yaml"
    threads: 2
    resources:
        mem_mb=megabytes(24000),
        runtime=minutes(240),
        gpu=corrsteer_gpus,
    params:
        model=corrsteer_model,
        task=corrsteer_task,
        bridge=lambda wildcards: CORRSTEER[wildcards.run].settings.bridge.model_dump(),
        settings=corrsteer_settings(*ANSWERING),
        code=code("corrsteer_bridge.py"),
    script:
        "../workflow_scripts/corrsteer_bridge.py"


rule corrsteer_report:
    input:
        answers=lambda wildcards: expand(
            ANSWERS,
            run=wildcards.run,
            seed=CORRSTEER[wildcards.run].settings.seeds,
            method=corrsteer_arms(wildcards.run),
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
    resources:
        mem_mb=megabytes(4000),
        runtime=minutes(30),
    params:
        seeds=lambda wildcards: CORRSTEER[wildcards.run].settings.seeds,
        arms=lambda wildcards: corrsteer_arms(wildcards.run),
        settings=corrsteer_settings("bootstrap_resamples"),
        code=code("corrsteer_report.py"),
    script:
        "../workflow_scripts/corrsteer_report.py"


rule corrsteer_cell:
    input:
        lambda wildcards: [
            expand(
                ANSWERS,
                run=corrsteer_cell_experiment(wildcards),
                seed=seed,
                method=method,
            )[0]
            for seed, method in corrsteer_cell_answers(wildcards)
        ],
    output:
        cell="results/tables/corrsteer/{table}/{cell}.json",
    log:
        "results/tables/logs/corrsteer_cell-{table}-{cell}.log",
    benchmark:
        "results/tables/benchmarks/corrsteer_cell-{table}-{cell}.tsv"
    conda:
        "../envs/steering.yaml"
    resources:
        mem_mb=megabytes(4000),
        runtime=minutes(30),
    params:
        cell=lambda wildcards: asdict(corrsteer_cell_of(wildcards)),
        experiment=corrsteer_cell_experiment,
        answers=corrsteer_cell_answers,
        bootstrap_resamples=2000,
        code=code("corrsteer_cell.py"),
    script:
        "../workflow_scripts/corrsteer_cell.py"


rule corrsteer_table:
    input:
        lambda wildcards: expand(
            rules.corrsteer_cell.output.cell, table=wildcards.table, cell=CELLS[wildcards.table]
        ),
    output:
        table="results/tables/corrsteer_{table}.csv",
    log:
        "results/tables/logs/corrsteer_table-{table}.log",
    benchmark:
        "results/tables/benchmarks/corrsteer_table-{table}.tsv"
    conda:
        "../envs/steering.yaml"
    resources:
        mem_mb=megabytes(4000),
        runtime=minutes(30),
    params:
        code=code("corrsteer_table.py"),
    script:
        "../workflow_scripts/corrsteer_table.py"


rule corrsteer_tables:
    input:
        expand(rules.corrsteer_table.output.table, table=FILES),
        "results/tables/provenance.json",
