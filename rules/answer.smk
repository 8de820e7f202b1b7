# What the experiment answers: what each method costs at one and the same effect, what sparsity costs
# there, a short summary, and the verdict in words.


rule matched:
    input:
        solutions=all_solutions_and_prompts,
        effects=rules.probe_effects.output.effects,
        divergence=methods_of(rules.divergence.output.divergence),
        judged=rules.judge.output.judged,
    output:
        matched="results/{experiment}/matched.csv",
        curves="results/{experiment}/effect_curves.csv",
    log:
        "results/{experiment}/logs/matched.log",
    benchmark:
        "results/{experiment}/benchmarks/matched.tsv"
    group:
        "tables"
    conda:
        "../envs/steering.yaml"
    params:
        task=task,
        settings=settings("seed", "bootstrap_resamples", "selection_kl", "matched_effect"),
        code=code("matched.py"),
    script:
        "../workflow_scripts/matched.py"


rule matched_figure:
    input:
        matched=rules.matched.output.matched,
        curves=rules.matched.output.curves,
    output:
        figure=report(
            "results/{experiment}/matched.svg",
            caption="report/matched.rst",
            category="{experiment}",
            labels={"what": "cost at equal effect"},
        ),
    log:
        "results/{experiment}/logs/matched_figure.log",
    benchmark:
        "results/{experiment}/benchmarks/matched_figure.tsv"
    group:
        "tables"
    conda:
        "../envs/steering.yaml"
    params:
        code=code("matched_figure.py"),
    script:
        "../workflow_scripts/matched_figure.py"


# What one, two, four … features cost at that effect: of the programs with counts of features.
rule price:
    input:
        layer=rules.pick_layer.output.layer,
        saes=table_of_saes,
        solutions=all_solutions_and_prompts,
        effects=rules.probe_effects.output.effects,
        divergence=methods_of(rules.divergence.output.divergence),
        judged=rules.judge.output.judged,
    output:
        price="results/{experiment}/price.csv",
        figure=report(
            "results/{experiment}/price.svg",
            caption="report/price.rst",
            category="{experiment}",
            labels={"what": "the price of sparsity"},
        ),
    log:
        "results/{experiment}/logs/price.log",
    benchmark:
        "results/{experiment}/benchmarks/price.tsv"
    group:
        "tables"
    conda:
        "../envs/steering.yaml"
    params:
        task=task,
        programs=declared_programs,
        settings=settings("seed", "bootstrap_resamples", "selection_kl", "matched_effect"),
        code=code("price.py"),
    script:
        "../workflow_scripts/price.py"


# What guards of declared programs cost and save; without such programs the table has no rows.
rule guards:
    input:
        prompts=rules.prompts.output.prompts,
        guards=files_of_guarded(PROMPT_GUARD_ROWS),
        divergence=methods_of(rules.divergence.output.divergence),
        judged=rules.judge.output.judged,
    output:
        guards="results/{experiment}/guards.csv",
    log:
        "results/{experiment}/logs/guards.log",
    benchmark:
        "results/{experiment}/benchmarks/guards.tsv"
    group:
        "tables"
    conda:
        "../envs/steering.yaml"
    params:
        unguarded=guarded_programs,
        settings=settings("seed", "bootstrap_resamples"),
        code=code("guards.py"),
    script:
        "../workflow_scripts/guards.py"


# Compare each method with its references on the same prompts, and the judges with each other.
rule differences:
    input:
        pareto=rules.pareto.output.pareto,
        matched=rules.matched.output.matched,
        prompts=rules.prompts.output.prompts,
        divergence=methods_of(rules.divergence.output.divergence),
        judged=rules.judge.output.judged,
    output:
        differences="results/{experiment}/differences.csv",
        judges="results/{experiment}/judges.csv",
    log:
        "results/{experiment}/logs/differences.log",
    benchmark:
        "results/{experiment}/benchmarks/differences.tsv"
    group:
        "tables"
    conda:
        "../envs/steering.yaml"
    params:
        task=task,
        settings=settings("seed", "bootstrap_resamples"),
        code=code("differences.py"),
    script:
        "../workflow_scripts/differences.py"


# Effect and cost over the size of what is added, with the band in which texts stay fluent.
rule dose:
    input:
        solutions=all_solutions_and_prompts,
        effects=rules.probe_effects.output.effects,
        directions=rules.fit_directions.output.directions,
        generations=methods_of(rules.generate.output.generations),
        divergence=methods_of(rules.divergence.output.divergence),
        judged=rules.judge.output.judged,
    output:
        table="results/{experiment}/dose.csv",
        figure=report(
            "results/{experiment}/dose.svg",
            caption="report/dose.rst",
            category="{experiment}",
            labels={"what": "effect and cost over the dose"},
        ),
    log:
        "results/{experiment}/logs/dose.log",
    benchmark:
        "results/{experiment}/benchmarks/dose.tsv"
    group:
        "tables"
    conda:
        "../envs/steering.yaml"
    params:
        target_class=target_class,
        settings=settings("seed", "bootstrap_resamples", "fluent_perplexity", "fluent_repetition"),
        code=code("dose.py"),
    script:
        "../workflow_scripts/dose.py"


rule answer:
    input:
        pareto=rules.pareto.output.pareto,
        matched=rules.matched.output.matched,
        curves=rules.matched.output.curves,
        price=rules.price.output.price,
        differences=rules.differences.output.differences,
        judges=rules.differences.output.judges,
    output:
        summary="results/{experiment}/summary.csv",
        verdict="results/{experiment}/verdict.json",
    log:
        "results/{experiment}/logs/answer.log",
    benchmark:
        "results/{experiment}/benchmarks/answer.tsv"
    group:
        "tables"
    conda:
        "../envs/steering.yaml"
    params:
        settings=settings("matched_factor", "matched_features"),
        code=code("answer.py"),
    script:
        "../workflow_scripts/answer.py"
