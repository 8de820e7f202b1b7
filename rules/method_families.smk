# Families of methods: a job solves those that read the same settings, so that another setting makes
# no others again.
from steering_core.config.methods import PROGRAM_FAMILIES, families_of, family_of, settings_of


wildcard_constraints:
    family="|".join(PROGRAM_FAMILIES),


SOLUTIONS = "results/{experiment}/solutions/{family}.parquet"


def family_settings(family=None):
    """A parameter with the configured methods of a family and the settings that they read."""
    return lambda wildcards: settings_of(family or wildcards.family, experiment(wildcards).settings)


def steering_files(wildcards):
    """What a method steers with; the decoder is for programs that follow the path further."""
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
    """The solutions of every family of which a method is configured."""
    families = families_of(experiment(wildcards).settings.methods)
    return expand(SOLUTIONS, experiment=wildcards.experiment, family=families)


def all_paths(wildcards):
    """The path as far as each family of programs needed it; one at least, for the pictures."""
    families = families_of(experiment(wildcards).settings.methods)
    programs = [family for family in families if family in PROGRAM_FAMILIES]
    return expand(
        rules.solve.output.path,
        experiment=wildcards.experiment,
        family=programs or PROGRAM_FAMILIES[:1],
    )
