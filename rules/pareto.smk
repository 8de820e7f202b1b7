# Make pareto.csv, one row per method and strength, and record which code and configuration made it.
#: Rule files whose scripts contribute to every row of pareto.csv. Experiments that use `layer_sweep`
#: or `demo` add these.
PARETO_RULES = ["fetch", "activations", "probes", "solve", "generate", "pareto"]


def in_demo_world(wildcards):
    """Return whether an experiment uses files that the demo's rules make."""
    return any(source.startswith("results/demo/") for source in local_sources(wildcards))


def codes_behind(wildcards):
    """Return the digest of each script that contributes to a row, by the script's name."""
    files = [*PARETO_RULES]
    if experiment(wildcards).settings.layer == "auto":
        files.append("layer_sweep")
    if in_demo_world(wildcards):
        files.append("demo")
    if plans(wildcards):
        files += ["corrsteer_select", "corrsteer_answer"]
    return codes_of(*files)


def config_behind(wildcards):
    """Return the whole configuration behind a row."""
    world = {"demo_world": DEMO.model_dump()} if in_demo_world(wildcards) else {}
    found = experiment(wildcards)
    runs = {plan.experiment for plan in found.settings.plans.values()}
    behind = {"corrsteer": {run: resolved(CORRSTEER[run]) for run in sorted(runs)}} if runs else {}
    return {**resolved(found), **world, **behind}


def own_files(wildcards):
    """Return the user's own files that stages read directly: concept texts and lexicon."""
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
        plans=plans,
        code=code("pareto.py"),
    script:
        "../workflow_scripts/pareto.py"
