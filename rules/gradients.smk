# What added vectors do to the model's predictions, from gradients. Only experiments with a declared
# program that needs them have these jobs.


# The Fisher information at the site: what every vector costs in KL, to second order.
rule estimate_fisher:
    input:
        resources=rules.fetch.output.resources,
        examples=rules.examples.output.examples,
        layer=rules.pick_layer.output.layer,
    output:
        fisher="results/{experiment}/fisher.safetensors",
    log:
        "results/{experiment}/logs/estimate_fisher.log",
    benchmark:
        "results/{experiment}/benchmarks/estimate_fisher.tsv"
    conda:
        "../envs/steering.yaml"
    threads: cores
    resources:
        mem_mb=megabytes(16000, model=2.5),
        runtime=minutes(120),
        gpu=gpus,
    params:
        model=model,
        fisher=setting("fisher"),
        settings=settings(
            "seed",
            "temperature",
            "top_p",
            "positions",
            "batch_prompts",
            "batch_tokens",
            "device",
        ),
        code=code("estimate_fisher.py"),
    script:
        "../workflow_scripts/estimate_fisher.py"


# The direction in which training texts of the target class become likelier, and the others less so.
rule likelihood_gradient:
    input:
        resources=rules.fetch.output.resources,
        examples=rules.examples.output.examples,
        layer=rules.pick_layer.output.layer,
    output:
        gradient="results/{experiment}/likelihood_gradient.safetensors",
    log:
        "results/{experiment}/logs/likelihood_gradient.log",
    benchmark:
        "results/{experiment}/benchmarks/likelihood_gradient.tsv"
    conda:
        "../envs/steering.yaml"
    threads: cores
    resources:
        mem_mb=megabytes(16000, model=2.5),
        runtime=minutes(120),
        gpu=gpus,
    params:
        model=model,
        target_class=target_class,
        settings=settings("max_tokens", "batch_tokens", "device"),
        code=code("likelihood_gradient.py"),
    script:
        "../workflow_scripts/likelihood_gradient.py"
