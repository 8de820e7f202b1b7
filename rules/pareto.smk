# One row per (method, strength), with the code and configuration that each row comes from.
#: Rule files whose scripts are behind every row of pareto.csv. `layer_sweep` and `demo` join them
#: where an experiment uses those.
PARETO_RULES = ["fetch", "activations", "probes", "solve", "generate", "pareto"]


def in_demo_world(wildcards):
    """Whether an experiment is about what the demo's own rules make."""
    return any(source.startswith("results/demo/") for source in local_sources(wildcards))


def codes_behind(wildcards):
    """The digest of each script that a row comes from, by its name."""
    files = [*PARETO_RULES]
    if experiment(wildcards).settings.layer == "auto":
        files.append("layer_sweep")
    if in_demo_world(wildcards):
        files.append("demo")
    return codes_of(*files)


def config_behind(wildcards):
    """All of the configuration that a row comes from."""
    world = {"demo_world": DEMO.model_dump()} if in_demo_world(wildcards) else {}
    return {**resolved(wildcards), **world}


def own_files(wildcards):
    """The user's files that are read as they are: concept texts and lexicon."""
    found = experiment(wildcards).task
    files = [found.concept]
    if found.classifier is not None and found.classifier.lexicon is not None:
        files.append(found.classifier.lexicon)
    return files


rule provenance:
    input:
        resources=rules.fetch.output.resources,
        files=own_files,
    output:
        provenance="results/{experiment}/provenance.json",
    log:
        "results/{experiment}/logs/provenance.log",
    benchmark:
        "results/{experiment}/benchmarks/provenance.tsv"
    group:
        "tables"
    conda:
        "../envs/steering.yaml"
    params:
        name=lambda wildcards: wildcards.experiment,
        config=config_behind,
        codes=codes_behind,
        code=code("provenance.py"),
    script:
        "../workflow_scripts/provenance.py"


rule pareto:
    input:
        provenance=rules.provenance.output.provenance,
        layer=rules.pick_layer.output.layer,
        probes=rules.fit_probes.output.report,
        solutions=all_solutions,
        effects=rules.probe_effects.output.effects,
        divergence=methods_of(rules.divergence.output.divergence),
        judged=rules.judge.output.judged,
    output:
        pareto="results/{experiment}/pareto.csv",
    log:
        "results/{experiment}/logs/pareto.log",
    benchmark:
        "results/{experiment}/benchmarks/pareto.tsv"
    group:
        "tables"
    conda:
        "../envs/steering.yaml"
    params:
        model=model,
        task=task,
        task_name=lambda wildcards: experiment(wildcards).task_name,
        settings=settings("seed", "methods", "bootstrap_resamples", "selection_kl"),
        code=code("pareto.py"),
    script:
        "../workflow_scripts/pareto.py"
