# Fit the directions of the fixed methods, follow the homotopy path of the programs, and solve every
# input. One job solves all methods of a family, which read the same settings, so a changed setting
# reruns its own family only.
rule fit_directions:
    input:
        decoder=rules.encode_features.output.decoder,
        resources=rules.fetch.output.resources,
        examples=rules.examples.output.examples,
        manifest=rules.activation_manifest.output.manifest,
        layer=rules.pick_layer.output.layer,
        correlation=rules.correlate_features.output.correlation,
    output:
        directions="results/{experiment}/directions.safetensors",
    log:
        "results/{experiment}/logs/fit_directions.log",
    benchmark:
        "results/{experiment}/benchmarks/fit_directions.tsv"
    group:
        "fits"
    conda:
        "../envs/steering.yaml"
    resources:
        mem_mb=megabytes(8000, sae=3),
        runtime=minutes(60),
    params:
        target_class=target_class,
        settings=settings("seed", "methods", "topk"),
        code=code("fit_directions.py"),
    script:
        "../workflow_scripts/fit_directions.py"


rule solve_directions:
    input:
        inputs=rules.examples.output.examples,
        directions=rules.fit_directions.output.directions,
    output:
        solutions="results/{experiment}/solutions/directions.parquet",
    log:
        "results/{experiment}/logs/solve_directions.log",
    benchmark:
        "results/{experiment}/benchmarks/solve_directions.tsv"
    group:
        "fits"
    conda:
        "../envs/steering.yaml"
    resources:
        mem_mb=megabytes(8000, sae=3),
        runtime=minutes(60),
    params:
        settings=family_settings("directions"),
        code=code("solve_directions.py"),
    script:
        "../workflow_scripts/solve_directions.py"


use rule solve_directions as solve_directions_prompts with:
    input:
        inputs=rules.prompts.output.prompts,
        directions=rules.fit_directions.output.directions,
    output:
        solutions="results/{experiment}/prompts/solutions/directions.parquet",
    log:
        "results/{experiment}/logs/solve_directions_prompts.log",
    benchmark:
        "results/{experiment}/benchmarks/solve_directions_prompts.tsv"


rule solve_prompting:
    input:
        inputs=rules.examples.output.examples,
    output:
        solutions="results/{experiment}/solutions/prompt.parquet",
    log:
        "results/{experiment}/logs/solve_prompting.log",
    benchmark:
        "results/{experiment}/benchmarks/solve_prompting.tsv"
    group:
        "fits"
    conda:
        "../envs/steering.yaml"
    params:
        code=code("solve_prompting.py"),
    script:
        "../workflow_scripts/solve_prompting.py"


use rule solve_prompting as solve_prompting_prompts with:
    input:
        inputs=rules.prompts.output.prompts,
    output:
        solutions="results/{experiment}/prompts/solutions/prompt.parquet",
    log:
        "results/{experiment}/logs/solve_prompting_prompts.log",
    benchmark:
        "results/{experiment}/benchmarks/solve_prompting_prompts.tsv"


# Follows the path as far as the margins and budgets of a family need it.
rule solve:
    input:
        decoder=rules.encode_features.output.decoder,
        resources=rules.fetch.output.resources,
        examples=rules.examples.output.examples,
        manifest=rules.activation_manifest.output.manifest,
        layer=rules.pick_layer.output.layer,
        probe=rules.fit_probes.output.probe,
    output:
        path="results/{experiment}/paths/{family}.safetensors",
        solutions=SOLUTIONS,
    log:
        "results/{experiment}/logs/solve-{family}.log",
    benchmark:
        "results/{experiment}/benchmarks/solve-{family}.tsv"
    conda:
        "../envs/steering.yaml"
    threads: cores
    resources:
        mem_mb=megabytes(16000, sae=6),
        runtime=minutes(240),
    params:
        target_class=target_class,
        settings=family_settings(),
        code=code("solve.py"),
    script:
        "../workflow_scripts/solve.py"


# The prompts begin with the path of the rows, and follow it further where they need to.
use rule solve as solve_prompts with:
    input:
        decoder=rules.encode_features.output.decoder,
        resources=rules.fetch.output.resources,
        examples=rules.examples.output.examples,
        manifest=rules.activation_manifest.output.manifest,
        prompts=rules.prompts.output.prompts,
        prompt_manifest=rules.cache_prompts.output.manifest,
        layer=rules.pick_layer.output.layer,
        probe=rules.fit_probes.output.probe,
        path=rules.solve.output.path,
    output:
        path=PROMPT_PATH,
        solutions=PROMPT_SOLUTIONS,
    log:
        "results/{experiment}/logs/solve_prompts-{family}.log",
    benchmark:
        "results/{experiment}/benchmarks/solve_prompts-{family}.tsv"


# A program that the experiment declares: the margin on any direction, in any metric.
rule solve_declared:
    input:
        unpack(gradient_files),
        unpack(guard_files),
        decoder=rules.encode_features.output.decoder,
        resources=rules.fetch.output.resources,
        examples=rules.examples.output.examples,
        manifest=rules.activation_manifest.output.manifest,
        layer=rules.pick_layer.output.layer,
        probe=rules.fit_probes.output.probe,
    output:
        solutions=PLAN_SOLUTIONS,
        plan=PLAN_VECTORS,
        guards=GUARD_ROWS,
    log:
        "results/{experiment}/logs/solve_declared-{method}.log",
    benchmark:
        "results/{experiment}/benchmarks/solve_declared-{method}.tsv"
    wildcard_constraints:
        method="|".join(PROGRAMS) or "(?!)",
    conda:
        "../envs/steering.yaml"
    threads: cores
    resources:
        mem_mb=megabytes(16000, sae=6),
        runtime=minutes(240),
    params:
        target_class=target_class,
        declared=declared_program,
        guarding_experiments=guarding_experiments,
        guarding_concepts=guarding_concepts,
        settings=settings("units"),
        code=code("solve_declared.py"),
    script:
        "../workflow_scripts/solve_declared.py"


use rule solve_declared as solve_declared_prompts with:
    input:
        unpack(gradient_files),
        unpack(guard_files),
        decoder=rules.encode_features.output.decoder,
        resources=rules.fetch.output.resources,
        examples=rules.examples.output.examples,
        manifest=rules.activation_manifest.output.manifest,
        prompts=rules.prompts.output.prompts,
        prompt_manifest=rules.cache_prompts.output.manifest,
        layer=rules.pick_layer.output.layer,
        probe=rules.fit_probes.output.probe,
    output:
        solutions=PROMPT_PLAN_SOLUTIONS,
        plan=PROMPT_PLAN_VECTORS,
        guards=PROMPT_GUARD_ROWS,
    log:
        "results/{experiment}/logs/solve_declared_prompts-{method}.log",
    benchmark:
        "results/{experiment}/benchmarks/solve_declared_prompts-{method}.tsv"


# A method that acts only where a condition on the residual holds.
rule gate_method:
    input:
        unpack(behind_gate),
        resources=rules.fetch.output.resources,
        examples=rules.examples.output.examples,
        manifest=rules.activation_manifest.output.manifest,
        layer=rules.pick_layer.output.layer,
        gate_probe=rules.fit_probes.output.probe,
    output:
        solutions=PLAN_SOLUTIONS,
        plan=PLAN_VECTORS,
    log:
        "results/{experiment}/logs/gate_method-{method}.log",
    benchmark:
        "results/{experiment}/benchmarks/gate_method-{method}.tsv"
    wildcard_constraints:
        method="|".join(GATED) or "(?!)",
    conda:
        "../envs/steering.yaml"
    resources:
        mem_mb=megabytes(8000, sae=3),
        runtime=minutes(60),
    params:
        target_class=target_class,
        model=model,
        gated=gate,
        code=code("gate_method.py"),
    script:
        "../workflow_scripts/gate_method.py"


use rule gate_method as gate_method_prompts with:
    input:
        unpack(behind_gate_of_prompts),
        resources=rules.fetch.output.resources,
        examples=rules.examples.output.examples,
        manifest=rules.activation_manifest.output.manifest,
        prompts=rules.prompts.output.prompts,
        prompt_manifest=rules.cache_prompts.output.manifest,
        layer=rules.pick_layer.output.layer,
        gate_probe=rules.fit_probes.output.probe,
    output:
        solutions=PROMPT_PLAN_SOLUTIONS,
        plan=PROMPT_PLAN_VECTORS,
    log:
        "results/{experiment}/logs/gate_method_prompts-{method}.log",
    benchmark:
        "results/{experiment}/benchmarks/gate_method_prompts-{method}.tsv"
