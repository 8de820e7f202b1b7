# What the rules know of methods: their families, their files, and the CorrSteer plans that an
# experiment evaluates like methods.
from types import SimpleNamespace

from steering_core.config.methods import (
    PROGRAM_FAMILIES,
    families_of,
    family_of,
    is_adaptive,
    settings_of,
)
from steering_core.config.requests import check_export


wildcard_constraints:
    family="|".join(PROGRAM_FAMILIES),


SOLUTIONS = "results/{experiment}/solutions/{family}.parquet"


#: The rows of a CorrSteer plan or a declared program, and its vectors where it steers.
PLAN_SOLUTIONS = "results/{experiment}/plans/{method}.parquet"
PLAN_VECTORS = "results/{experiment}/plans/{method}.safetensors"
#: What each guard of a declared program costs and saves; without guards the table has no rows.
GUARD_ROWS = "results/{experiment}/plans/{method}.guards.parquet"

#: The same files for the prompts. They are apart, so that other prompts leave the rest alone.
PROMPT_SOLUTIONS = "results/{experiment}/prompts/solutions/{family}.parquet"
PROMPT_PATH = "results/{experiment}/prompts/paths/{family}.safetensors"
PROMPT_PLAN_SOLUTIONS = "results/{experiment}/prompts/plans/{method}.parquet"
PROMPT_PLAN_VECTORS = "results/{experiment}/prompts/plans/{method}.safetensors"
PROMPT_GUARD_ROWS = "results/{experiment}/prompts/plans/{method}.guards.parquet"


def plan_source(wildcards):
    """The arm that a plan comes from, and its scales."""
    return experiment(wildcards).settings.plans[wildcards.method]


def declared_program(wildcards):
    """A declared program as plain values."""
    return experiment(wildcards).settings.programs[wildcards.method].model_dump()


def guarding_experiments(wildcards):
    """The experiments whose probes are guards of a declared program."""
    return experiment(wildcards).settings.programs[wildcards.method].guarding_experiments


def guarding_concepts(wildcards):
    """The concept files whose contrastive directions are guards of a declared program."""
    return experiment(wildcards).settings.programs[wildcards.method].guarding_concepts


def guarding_concept(wildcards):
    """Return the concept file of this name that guards a declared program of the experiment."""
    programs = experiment(wildcards).settings.programs.values()
    files = [file for program in programs for file in program.guarding_concepts]
    return next((file for file in files if Path(file).stem == wildcards.guard), [])


def guard_files(wildcards):
    """Return the directions that guard a declared program: probes, their layers, and contrasts."""
    others = guarding_experiments(wildcards)
    names = [Path(file).stem for file in guarding_concepts(wildcards)]
    contrasts = rules.guard_direction.output.direction
    return {
        "guard_probes": expand(rules.fit_probes.output.probe, experiment=others),
        "guard_layers": expand(rules.pick_layer.output.layer, experiment=others),
        "guard_contrasts": expand(contrasts, experiment=wildcards.experiment, guard=names),
    }


def guarded_programs(wildcards):
    """Return each declared program with guards, and the one that differs in its guards alone."""
    named = experiment(wildcards).settings.programs
    programs = {name: one.model_dump() for name, one in named.items()}
    found = {}
    for name, one in programs.items():
        if one["guards"]:
            plain = {**one, "guards": []}
            found[name] = next((other for other in programs if programs[other] == plain), None)
    return found


def files_of_guarded(pattern):
    """Return an input with a file for each declared program with guards."""
    return lambda wildcards: expand(
        pattern, experiment=wildcards.experiment, method=[*guarded_programs(wildcards)]
    )


def gradient_files(wildcards):
    """Return what a declared program needs of the stages that take gradients."""
    files, program = {}, experiment(wildcards).settings.programs[wildcards.method]
    if program.needs_fisher:
        files["fisher"] = rules.estimate_fisher.output.fisher
    if program.needs_likelihood_gradient:
        files["gradient"] = rules.likelihood_gradient.output.gradient
    return {name: expand(file, experiment=wildcards.experiment)[0] for name, file in files.items()}


def declared_programs(wildcards):
    """The declared programs of an experiment as plain values, by name."""
    found = experiment(wildcards).settings.programs
    return {name: program.model_dump() for name, program in found.items()}


def plan_files(wildcards):
    """The files of the CorrSteer experiment that a plan comes from."""
    source = plan_source(wildcards)
    job = SimpleNamespace(run=source.experiment, arm=source.arm, seed=source.seed)
    run_resources = expand(rules.corrsteer_fetch.output.resources, run=source.experiment)[0]
    return {**plan_and_validation(job), "run_resources": run_resources}


def family_settings(family=None):
    """Return a parameter with the configured methods of a family and the settings they read."""
    return lambda wildcards: settings_of(family or wildcards.family, experiment(wildcards).settings)


def trained_lora(wildcards):
    """Return how the adapter is trained; the scales that it is tried at do not belong to that."""
    return experiment(wildcards).settings.lora.model_dump(exclude={"scales"})


def lora_scales(wildcards):
    """Return the scales that the adapter is tried at."""
    return experiment(wildcards).settings.lora.scales


def gate(wildcards):
    """A gated method as plain values."""
    return experiment(wildcards).settings.gated[wildcards.method].model_dump()


def behind_gate(wildcards, files=None):
    """Return the files that the method behind a gate steers with."""
    method = experiment(wildcards).settings.gated[wildcards.method].method
    job = SimpleNamespace(experiment=wildcards.experiment, method=method)
    return (files or steering_files)(job)


def behind_gate_of_prompts(wildcards):
    """Return the files with which the method behind a gate steers the prompts."""
    return behind_gate(wildcards, prompt_steering_files)


def solved_at_every_position(wildcards):
    """Return whether a declared program, or what is behind a gate, is adaptive."""
    found = experiment(wildcards).settings
    gated = found.gated.get(wildcards.method)
    method = wildcards.method if gated is None else gated.method
    declared = found.programs.get(method)
    return is_adaptive(method) if declared is None else declared.mode == "adaptive"


def steering_files(wildcards):
    """Return the files a method steers with. Adaptive programs extend the path with the decoder."""
    if wildcards.method not in METHODS:
        names = {"experiment": wildcards.experiment, "method": wildcards.method}
        files = {
            "solutions": expand(PLAN_SOLUTIONS, **names)[0],
            "plan": expand(PLAN_VECTORS, **names)[0],
        }
        if solved_at_every_position(wildcards):
            files["decoder"] = expand(rules.encode_features.output.decoder, **names)[0]
        return files
    family = family_of(wildcards.method)
    files = {"solutions": SOLUTIONS}
    if family == "prompt":
        files["concept"] = experiment(wildcards).task.concept
    elif family == "adapter":
        files["adapter"] = rules.train_lora.output.adapter
        files["adapter_config"] = rules.train_lora.output.config
    elif family == "directions":
        files["directions"] = rules.fit_directions.output.directions
    else:
        files["decoder"] = rules.encode_features.output.decoder
        files["path"] = rules.solve.output.path
        files["probe"] = rules.fit_probes.output.probe
    names = {"experiment": wildcards.experiment, "family": family}
    return {name: expand(file, **names)[0] for name, file in files.items()}


def prompt_steering_files(wildcards):
    """Return the files with which a method steers the prompts."""
    names = {"experiment": wildcards.experiment, "method": wildcards.method}
    files = steering_files(wildcards)
    if wildcards.method in METHODS:
        own = {"solutions": PROMPT_SOLUTIONS, "path": PROMPT_PATH}
        names["family"] = family_of(wildcards.method)
    else:
        own = {"solutions": PROMPT_PLAN_SOLUTIONS, "plan": PROMPT_PLAN_VECTORS}
    return {
        name: expand(own[name], **names)[0] if name in own else file for name, file in files.items()
    }


def new_input_files(wildcards):
    """Return the files with which a method steers inputs that its experiment has not solved."""
    found = experiment(wildcards).settings
    # Behind a gate, the rows have no vector where it is closed; the prompts keep theirs.
    gated = wildcards.method in found.gated
    files = prompt_steering_files(wildcards) if gated else steering_files(wildcards)
    if wildcards.method in found.programs:
        decoder = rules.encode_features.output.decoder
        files["decoder"] = expand(decoder, experiment=wildcards.experiment)[0]
    return files


def shard_methods(wildcards):
    """Return the methods of one of the jobs that share them, with the files they steer with."""
    shards, name = experiment(wildcards).settings.shards, wildcards.experiment
    return {
        method: prompt_steering_files(SimpleNamespace(experiment=name, method=method))
        for method in all_methods(wildcards)[int(wildcards.shard) :: shards]
    }


def shard_files(wildcards):
    """Return all files that the methods of such a job steer with."""
    files = (file for files in shard_methods(wildcards).values() for file in files.values())
    return [*dict.fromkeys(files)]


def exported_files(wildcards):
    """Return the files an export reads, of a gated method those of the method behind it, too.

    A declared program is solved again, on the decoder.
    """
    settings, name = experiment(wildcards).settings, wildcards.method
    check_export(name, settings)
    files = steering_files(wildcards)
    if name in settings.programs:
        decoder = rules.encode_features.output.decoder
        files["decoder"] = expand(decoder, experiment=wildcards.experiment)[0]
    if name in settings.gated:
        behind = SimpleNamespace(
            experiment=wildcards.experiment, method=settings.gated[name].method
        )
        files |= {f"behind_{key}": file for key, file in exported_files(behind).items()}
    return files


def all_solutions(wildcards):
    """Return the solutions of every family with a configured method."""
    families = families_of(experiment(wildcards).settings.methods)
    return [
        *expand(SOLUTIONS, experiment=wildcards.experiment, family=families),
        *expand(PLAN_SOLUTIONS, experiment=wildcards.experiment, method=plans(wildcards)),
    ]


def all_solutions_and_prompts(wildcards):
    """Return the solutions of every family, for rows and for prompts."""
    families = families_of(experiment(wildcards).settings.methods)
    return [
        *all_solutions(wildcards),
        *expand(PROMPT_SOLUTIONS, experiment=wildcards.experiment, family=families),
        *expand(PROMPT_PLAN_SOLUTIONS, experiment=wildcards.experiment, method=plans(wildcards)),
    ]


def all_paths(wildcards):
    """Return the path of each configured family of programs; the pictures need at least one."""
    families = families_of(experiment(wildcards).settings.methods)
    programs = [family for family in families if family in PROGRAM_FAMILIES]
    return expand(
        rules.solve.output.path,
        experiment=wildcards.experiment,
        family=programs or PROGRAM_FAMILIES[:1],
    )
