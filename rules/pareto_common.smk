# What is behind a row of pareto.csv: code, configuration and the user's own files.
from steering_core.config.prepared_models import with_directory
from steering_core.config.methods import LORA

#: Rule files whose scripts contribute to every row of pareto.csv. Experiments that use `layer_sweep`,
#: `layer_effect` or `demo` add these.
PARETO_RULES = ["fetch", "activations", "probes", "solve", "generate", "pareto"]


def in_demo_world(wildcards):
    """Return whether an experiment uses files that the demo's rules make."""
    return any(source.startswith("results/demo/") for source in local_sources(wildcards))


def codes_behind(wildcards):
    """Return the digest of each script that contributes to a row, by the script's name."""
    files = [*PARETO_RULES]
    chosen_by = {"auto": "layer_sweep", "effect": "layer_effect"}
    if experiment(wildcards).settings.layer in chosen_by:
        files.append(chosen_by[experiment(wildcards).settings.layer])
    if in_demo_world(wildcards):
        files.append("demo")
    if experiment(wildcards).model.sae.train is not None:
        files.append("train_saes")
    if with_directory(experiment(wildcards).model).id != experiment(wildcards).model.id:
        files.append("gguf")
    if LORA in experiment(wildcards).settings.methods:
        files.append("lora")
    programs = experiment(wildcards).settings.programs.values()
    if any(one.needs_fisher or one.needs_likelihood_gradient for one in programs):
        files.append("gradients")
    if any(one.guarding_concepts for one in programs):
        files.append("guards")
    if experiment(wildcards).settings.plans:
        files += ["corrsteer_select", "corrsteer_answer"]
    return codes_of(*files)


def config_behind(wildcards):
    """Return the whole configuration behind a row."""
    world = {"demo_world": DEMO.model_dump()} if in_demo_world(wildcards) else {}
    found = experiment(wildcards)
    runs = {plan.experiment for plan in found.settings.plans.values()}
    behind = {"corrsteer": {run: resolved(CORRSTEER[run]) for run in sorted(runs)}} if runs else {}
    programs = found.settings.programs.values()
    guarding = {name for program in programs for name in program.guarding_experiments}
    if guarding:
        behind["guards"] = {
            name: resolved(checked_experiment(name, repr(config))) for name in sorted(guarding)
        }
    return {**resolved(found), **world, **behind}


def own_files(wildcards):
    """Return the user's own files that stages read directly: concept texts, lexicon, guards."""
    found, programs = experiment(wildcards).task, experiment(wildcards).settings.programs
    lexicons = [judge.lexicon for judge in found.judges if judge.lexicon is not None]
    guards = [file for program in programs.values() for file in program.guarding_concepts]
    return [*dict.fromkeys([found.concept, *lexicons, *guards])]
