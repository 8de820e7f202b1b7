# Families of methods. One job solves all methods that read the same settings, so a changed setting
# reruns its own family only.
from steering_core.config.methods import PROGRAM_FAMILIES, families_of, family_of, settings_of


wildcard_constraints:
    family="|".join(PROGRAM_FAMILIES),


SOLUTIONS = "results/{experiment}/solutions/{family}.parquet"


def family_settings(family=None):
    """Return a parameter with the configured methods of a family and the settings they read."""
    return lambda wildcards: settings_of(family or wildcards.family, experiment(wildcards).settings)


def steering_files(wildcards):
    """Return the files a method steers with. Adaptive programs extend the path with the decoder."""
    family = family_of(wildcards.method)
    files = {"solutions": SOLUTIONS}
    if family == "directions":
        files["directions"] = rules.fit_directions.output.directions
    else:
        files["decoder"] = rules.encode_features.output.decoder
        files["path"] = rules.solve.output.path
        files["probe"] = rules.fit_probes.output.probe
    names = {"experiment": wildcards.experiment, "family": family}
    return {name: expand(file, **names)[0] for name, file in files.items()}


def all_solutions(wildcards):
    """Return the solutions of every family with a configured method."""
    families = families_of(experiment(wildcards).settings.methods)
    return expand(SOLUTIONS, experiment=wildcards.experiment, family=families)


def all_paths(wildcards):
    """Return the path of each configured family of programs; the pictures need at least one."""
    families = families_of(experiment(wildcards).settings.methods)
    programs = [family for family in families if family in PROGRAM_FAMILIES]
    return expand(
        rules.solve.output.path,
        experiment=wildcards.experiment,
        family=programs or PROGRAM_FAMILIES[:1],
    )
