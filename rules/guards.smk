# The directions of concept files that guard declared programs. Only experiments with such guards have
# these jobs.
import re


rule guard_direction:
    input:
        concept=guarding_concept,
        resources=rules.fetch.output.resources,
        layer=rules.pick_layer.output.layer,
    output:
        direction="results/{experiment}/guards/{guard}.safetensors",
    log:
        "results/{experiment}/logs/guard_direction-{guard}.log",
    benchmark:
        "results/{experiment}/benchmarks/guard_direction-{guard}.tsv"
    wildcard_constraints:
        guard="|".join(map(re.escape, GUARDING_CONCEPTS)) or "(?!)",
    conda:
        "../envs/steering.yaml"
    threads: cores
    resources:
        mem_mb=megabytes(16000, model=1.5),
        runtime=minutes(60),
        gpu=gpus,
    params:
        model=model,
        settings=settings("max_tokens", "chat_template", "batch_tokens", "device"),
        code=code("guard_direction.py"),
    script:
        "../workflow_scripts/guard_direction.py"
