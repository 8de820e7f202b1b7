# What steering costs elsewhere: on neutral text and on the questions of CorrSteer's tasks, for each
# method at its selected strength. A job reads one probe under all methods, so the model is loaded once.
# The table of each method is kept in a folder of the probe's name as soon as it is complete.
localrules:
    elsewhere_texts,


rule elsewhere_texts:
    input:
        elsewhere_dataset,
        resources=rules.fetch.output.resources,
    output:
        texts="results/{experiment}/elsewhere/texts.parquet",
        dataset="results/{experiment}/elsewhere/texts.json",
    log:
        "results/{experiment}/logs/elsewhere_texts.log",
    benchmark:
        "results/{experiment}/benchmarks/elsewhere_texts.tsv"
    retries: 0  # the script itself retries downloads that can succeed
    conda:
        "../envs/steering.yaml"
    params:
        model=model,
        source=setting("elsewhere_text"),
        settings=settings("elsewhere_rows", "seed"),
        code=code("elsewhere_texts.py"),
    script:
        "../workflow_scripts/elsewhere_texts.py"


rule elsewhere_text:
    input:
        steering=elsewhere_steering,
        texts=rules.elsewhere_texts.output.texts,
        resources=rules.fetch.output.resources,
        layer=rules.pick_layer.output.layer,
        pareto=rules.pareto.output.pareto,
    output:
        cost="results/{experiment}/elsewhere/text.parquet",
    log:
        "results/{experiment}/logs/elsewhere_text.log",
    benchmark:
        "results/{experiment}/benchmarks/elsewhere_text.tsv"
    conda:
        "../envs/steering.yaml"
    threads: cores
    resources:
        mem_mb=megabytes(16000, model=1.5, sae=2),
        runtime=minutes(720),
        gpu=gpus,
    params:
        model=model,
        target_class=target_class,
        methods=elsewhere_methods,
        settings=settings("max_tokens", "batch_tokens", "device"),
        code=code("elsewhere_text.py"),
    script:
        "../workflow_scripts/elsewhere_text.py"


rule corrsteer_elsewhere:
    input:
        unpack(elsewhere_questions),
        steering=elsewhere_steering,
        resources=rules.fetch.output.resources,
        layer=rules.pick_layer.output.layer,
        pareto=rules.pareto.output.pareto,
    output:
        answers="results/{experiment}/elsewhere/{questions}.parquet",
    log:
        "results/{experiment}/logs/corrsteer_elsewhere-{questions}.log",
    benchmark:
        "results/{experiment}/benchmarks/corrsteer_elsewhere-{questions}.tsv"
    conda:
        "../envs/steering.yaml"
    threads: cores
    resources:
        mem_mb=megabytes(24000, model=1.5, sae=2),
        runtime=minutes(720),
        gpu=gpus,
    params:
        model=model,
        target_class=target_class,
        methods=elsewhere_methods,
        task=lambda wildcards: section(elsewhere_run(wildcards).task),
        answering=lambda wildcards: {
            name: getattr(elsewhere_run(wildcards).settings, name) for name in ANSWERING
        },
        settings=settings("positions"),
        code=code("corrsteer_elsewhere.py"),
    script:
        "../workflow_scripts/corrsteer_elsewhere.py"


rule elsewhere:
    input:
        summary=rules.answer.output.summary,
        probes=elsewhere_files,
    output:
        table="results/{experiment}/elsewhere.csv",
        figure=report(
            "results/{experiment}/elsewhere.svg",
            caption="report/elsewhere.rst",
            category="{experiment}",
            labels={"what": "cost elsewhere"},
        ),
    log:
        "results/{experiment}/logs/elsewhere.log",
    benchmark:
        "results/{experiment}/benchmarks/elsewhere.tsv"
    group:
        "last"
    conda:
        "../envs/steering.yaml"
    params:
        probes=setting("elsewhere"),
        unguarded=guarded_programs,
        settings=settings("seed", "bootstrap_resamples"),
        code=code("elsewhere.py"),
    script:
        "../workflow_scripts/elsewhere.py"
