# Families of methods: a job solves those that read the same settings, so that another setting makes
# no others again.
from steering_core.config.method_families import (
    METHOD_FAMILIES,
    families_of,
    family_of,
    settings_of,
)


wildcard_constraints:
    family="|".join(METHOD_FAMILIES),


def family_settings(wildcards):
    """A parameter with the configured methods of a family and the settings that they read."""
    return settings_of(wildcards.family, experiment(wildcards).settings)


def made_from(family, wildcards):
    """The files that the vectors of a family are made from, by name."""
    if family == "directions":
        files = {"directions": rules.fit_directions.output.directions}
    else:
        files = {"path": rules.fit_path.output.path, "probe": rules.fit_probes.output.probe}
    return {name: expand(file, experiment=wildcards.experiment)[0] for name, file in files.items()}


def family_files(wildcards):
    """What a family is solved with: fixed directions, or the path of the probe."""
    return made_from(wildcards.family, wildcards)


def steering_files(wildcards):
    """What a method steers with; the decoder is for programs that follow the path further."""
    family = family_of(wildcards.method)
    names = {"experiment": wildcards.experiment, "family": family}
    files = {"solutions": rules.solve.output.solutions}
    if family != "directions":
        files["decoder"] = rules.encode_features.output.decoder
    found = {name: expand(file, **names)[0] for name, file in files.items()}
    return {**found, **made_from(family, wildcards)}


def all_solutions(wildcards):
    """The solutions of every family of which a method is configured."""
    return expand(
        rules.solve.output.solutions,
        experiment=wildcards.experiment,
        family=families_of(experiment(wildcards).settings.methods),
    )
