# CorrSteer: turn arms and baselines into vectors or fine-tuned models, and collect their answers.
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
    params:
        model=model,
        task=task,
        arm=arm,
        settings=settings("keep", "min_outcomes", "published_site"),
        code=code("corrsteer_plan.py"),
    script:
        "../workflow_scripts/corrsteer_plan.py"


# One process answers under all arms, so the model and the judge are loaded once. The answers under
# each arm, and the validation of its layers, are kept as soon as they are complete.
rule corrsteer_answer:
    input:
        unpack(shared_arm_files),
        resources=rules.corrsteer_fetch.output.resources,
        examples=rules.corrsteer_examples.output.examples,
    output:
        answers=ANSWERS,
    log:
        "results/{run}/logs/corrsteer_answer-{seed}-{shard}.log",
    benchmark:
        "results/{run}/benchmarks/corrsteer_answer-{seed}-{shard}.tsv"
    conda:
        "../envs/steering.yaml"
    threads: cores
    resources:
        mem_mb=megabytes(24000, model=1.5, judges=1.5),
        runtime=minutes(720),
        gpu=gpus,
    params:
        model=model,
        task=task,
        arms=shared_arms,
        settings=settings(*ANSWERING),
        validation_code=code("corrsteer_validate.py"),
        code=code("corrsteer_answer.py"),
    script:
        "../workflow_scripts/corrsteer_answer.py"


# A plan that is evaluated like a method needs its validation, and no answers.
rule corrsteer_validate:
    input:
        resources=rules.corrsteer_fetch.output.resources,
        examples=rules.corrsteer_examples.output.examples,
        plan=plan_of,
    output:
        validation=VALIDATION,
    log:
        "results/{run}/logs/corrsteer_validate-{seed}-{arm}.log",
    benchmark:
        "results/{run}/benchmarks/corrsteer_validate-{seed}-{arm}.tsv"
    conda:
        "../envs/steering.yaml"
    threads: cores
    resources:
        mem_mb=megabytes(24000, model=1.5, judges=1.5),
        runtime=minutes(240),
        gpu=gpus,
    params:
        model=model,
        task=task,
        settings=settings(*ANSWERING),
        code=code("corrsteer_validate.py"),
    script:
        "../workflow_scripts/corrsteer_validate.py"


rule corrsteer_experiment_method:
    input:
        unpack(method_arm_files),
        resources=rules.corrsteer_fetch.output.resources,
        examples=rules.corrsteer_examples.output.examples,
    output:
        answers="results/{run}/corrsteer/seed-{seed}/answers/{method_arm}.parquet",
    log:
        "results/{run}/logs/corrsteer_experiment_method-{seed}-{method_arm}.log",
    benchmark:
        "results/{run}/benchmarks/corrsteer_experiment_method-{seed}-{method_arm}.tsv"
    conda:
        "../envs/steering.yaml"
    threads: cores
    resources:
        mem_mb=megabytes(24000, model=1.5, sae=3, judges=1.5),
        runtime=minutes(240),
        gpu=gpus,
    params:
        model=model,
        task=task,
        source=lambda wildcards: method_source(wildcards).model_dump(exclude_none=True),
        target_class=lambda wildcards: method_experiment(wildcards).task.target_class,
        positions=lambda wildcards: method_experiment(wildcards).settings.positions,
        settings=settings(*ANSWERING),
        code=code("corrsteer_experiment_method.py"),
    script:
        "../workflow_scripts/corrsteer_experiment_method.py"


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
    threads: cores
    resources:
        mem_mb=megabytes(48000, weights32=5, judges=1.5),
        runtime=minutes(240),
        gpu=gpus,
    params:
        model=model,
        task=task,
        fine_tuning=setting("fine_tuning"),
        settings=settings(*ANSWERING, "long_prompts"),
        code=code("corrsteer_fine_tune.py"),
    script:
        "../workflow_scripts/corrsteer_fine_tune.py"


# One process, too, but another one: an edit of a solver answers under no arm again, and the SAEs
# need memory.
rule corrsteer_sparse_methods:
    input:
        resources=rules.corrsteer_fetch.output.resources,
        examples=rules.corrsteer_examples.output.examples,
        training=rules.corrsteer_merge.output.answers,
        plan=lambda wildcards: expand(
            rules.corrsteer_plan.output.plan,
            run=wildcards.run,
            seed=wildcards.seed,
            arm=experiment(wildcards).settings.sparse_methods.arm,
        )[0],
    output:
        answers=SPARSE_ANSWERS,
    log:
        "results/{run}/logs/corrsteer_sparse_methods-{seed}-{shard}.log",
    benchmark:
        "results/{run}/benchmarks/corrsteer_sparse_methods-{seed}-{shard}.tsv"
    conda:
        "../envs/steering.yaml"
    threads: cores
    resources:
        mem_mb=megabytes(24000, model=models_in_memory, sae=3, judges=1.5),
        runtime=minutes(720),
        gpu=gpus,
    params:
        model=model,
        task=task,
        methods=shared_sparse_methods,
        sparse_methods=sparse_settings,
        programs=shared_programs,
        settings=settings(*ANSWERING),
        code=code("corrsteer_sparse_methods.py"),
    script:
        "../workflow_scripts/corrsteer_sparse_methods.py"


# A CorrSteer plan, evaluated like a method.
rule corrsteer_as_method:
    input:
        unpack(plan_files),
        resources=rules.fetch.output.resources,
        inputs=rules.examples.output.examples,
    output:
        solutions=PLAN_SOLUTIONS,
        plan=PLAN_VECTORS,
    log:
        "results/{experiment}/logs/corrsteer_as_method-{method}.log",
    benchmark:
        "results/{experiment}/benchmarks/corrsteer_as_method-{method}.tsv"
    wildcard_constraints:
        method="|".join(PLANS) or "(?!)",
    conda:
        "../envs/steering.yaml"
    params:
        scales=lambda wildcards: plan_source(wildcards).scales,
        strategy=lambda wildcards: (
            CORRSTEER[plan_source(wildcards).experiment]
            .settings.arms[plan_source(wildcards).arm]
            .strategy
        ),
        code=code("corrsteer_as_method.py"),
    script:
        "../workflow_scripts/corrsteer_as_method.py"


use rule corrsteer_as_method as corrsteer_as_method_prompts with:
    input:
        unpack(plan_files),
        resources=rules.fetch.output.resources,
        inputs=rules.prompts.output.prompts,
    output:
        solutions=PROMPT_PLAN_SOLUTIONS,
        plan=PROMPT_PLAN_VECTORS,
    log:
        "results/{experiment}/logs/corrsteer_as_method_prompts-{method}.log",
    benchmark:
        "results/{experiment}/benchmarks/corrsteer_as_method_prompts-{method}.tsv"
