# The baseline that changes weights: a LoRA adapter that learns to write texts of the target class.
# Only experiments whose `methods` name `lora` have these jobs.


rule train_lora:
    input:
        resources=rules.fetch.output.resources,
        examples=rules.examples.output.examples,
    output:
        adapter="results/{experiment}/lora/adapter_model.safetensors",
        config="results/{experiment}/lora/adapter_config.json",
        training="results/{experiment}/lora/training.json",
    log:
        "results/{experiment}/logs/train_lora.log",
    benchmark:
        "results/{experiment}/benchmarks/train_lora.tsv"
    conda:
        "../envs/steering.yaml"
    threads: cores
    resources:
        mem_mb=megabytes(24000, model=4),
        runtime=minutes(720),
        gpu=gpus,
    params:
        model=model,
        target_class=target_class,
        lora=trained_lora,
        settings=settings("seed", "max_tokens", "device"),
        code=code("train_lora.py"),
    script:
        "../workflow_scripts/train_lora.py"


rule solve_lora:
    input:
        inputs=rules.examples.output.examples,
    output:
        solutions="results/{experiment}/solutions/adapter.parquet",
    log:
        "results/{experiment}/logs/solve_lora.log",
    benchmark:
        "results/{experiment}/benchmarks/solve_lora.tsv"
    group:
        "fits"
    conda:
        "../envs/steering.yaml"
    params:
        scales=lora_scales,
        code=code("solve_lora.py"),
    script:
        "../workflow_scripts/solve_lora.py"


use rule solve_lora as solve_lora_prompts with:
    input:
        inputs=rules.prompts.output.prompts,
    output:
        solutions="results/{experiment}/prompts/solutions/adapter.parquet",
    log:
        "results/{experiment}/logs/solve_lora_prompts.log",
    benchmark:
        "results/{experiment}/benchmarks/solve_lora_prompts.tsv"
