# What a row of pareto.csv comes from: scripts, configuration, files of the user.
#: Scripts of the rules that a row of pareto.csv comes from.
SCRIPTS = [
    "activation_manifest.py",
    "cache_activations.py",
    "correlate_features.py",
    "divergence.py",
    "encode_features.py",
    "examples.py",
    "fetch.py",
    "fit_directions.py",
    "solve_directions.py",
    "fit_probes.py",
    "generate.py",
    "judge.py",
    "pareto.py",
    "pick_layer.py",
    "probe_effects.py",
    "provenance.py",
    "solve.py",
]

#: And those that choose the layer, where it is `auto`.
SWEEP_SCRIPTS = ["fetch_sweep.py", "sweep_layers.py"]

#: And those that make the demo's world, where it is used.
DEMO_SCRIPTS = ["demo_corpus.py", "demo_language_model.py", "demo_sparse_autoencoders.py"]


def in_demo_world(wildcards):
    """Whether an experiment is about what the demo's own rules make."""
    return any(source.startswith("results/demo/") for source in local_sources(wildcards))


def codes_behind(wildcards):
    """The digest of each script that a row comes from, by its name."""
    scripts = [*SCRIPTS]
    if experiment(wildcards).settings.layer == "auto":
        scripts += SWEEP_SCRIPTS
    if in_demo_world(wildcards):
        scripts += DEMO_SCRIPTS
    return {script: code(script) for script in sorted(scripts)}


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
