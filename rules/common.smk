# Shared by all rules: the checked configuration, and the inputs and parameters made from it.
# An experiment is of one of two kinds. The wildcard `experiment` names one that delivers
# pareto.csv, `run` one of CorrSteer. Each helper below takes a job of either kind.
import re
import time
from functools import cache
from pathlib import Path

from snakemake.logging import logger

from steering_core.runtime.machine import gpus_on
from steering_core.runtime.digest import code_digest
from steering_core.runtime.sizes import read_sizes
from steering_core.config import load_config, resolve
from steering_core.config.gguf import FOLDER, gguf_path, is_gguf, with_directory
from steering_core.config.methods import BASELINE, METHODS, PROMPTING
from steering_core.config.paths import fixed_part
from steering_core.config.requests import (
    check_config_files,
    check_options,
    check_top_level,
    requested_experiments,
    with_nulls,
)
from steering_core.config.resolve import (
    check_guards,
    check_plans,
    concept_sets,
    elsewhere_runs,
    load_corrsteer,
    load_section,
    load_trained,
    gated_names,
    plan_names,
    program_names,
)
from steering_core.corrsteer.read_items import configured_task
from steering_core.corrsteer.tasks import OPTIONS
from steering_core.data.concept import read_concept
from steering_core.early_checks import check_before_any_job
from steering_core.errors import ConfigError
from steering_core.runtime.provenance import json_digest
from steering_core.storage.files import read_json

check_config_files(workflow.config_settings.configfiles, Path.cwd())
config.update(with_nulls(config, workflow.config_settings.config))

EXPERIMENTS = sorted(load_config(config)[0].experiments)

#: CorrSteer tasks that other experiments answer to see the cost elsewhere, by name.
ELSEWHERE = elsewhere_runs(config)

#: The CorrSteer experiments, by name, and these.
CORRSTEER = {**load_corrsteer(config), **ELSEWHERE}

#: Experiments of each concept set, which one table averages over.
CONCEPT_SETS = concept_sets(config)

#: Models whose SAEs the rules train, by name.
TRAINED = {name: with_directory(found) for name, found in load_trained(config).items()}

#: Models given as GGUF files, by the name of the directory that a rule writes for each.
GGUF = {
    Path(with_directory(found).id).name: found
    for found in [*load_config(config)[0].models.values(), *load_section(config).models.values()]
    if is_gguf(found.id)
}

#: CorrSteer plans that experiments evaluate like methods.
PLANS = plan_names(config)

#: Programs that experiments declare.
PROGRAMS = program_names(config)

#: Every gated method that an experiment declares.
GATED = gated_names(config)

#: The results of an experiment.
PRODUCTS = [
    "index.html",
    "summary.csv",
    "verdict.json",
    "matched.csv",
    "matched.svg",
    "price.csv",
    "price.svg",
    "dose.csv",
    "dose.svg",
    "pareto.csv",
    "pareto.svg",
    "pareto.html",
    "sweep.svg",
    "generations.html",
    "features.html",
    "frontier.svg",
    "variants.csv",
    "variants.svg",
    "norm_matched.csv",
    "norm_matched.svg",
    "provenance.json",
    "products.json",
]

#: Further files that the rules of the products write.
BESIDE = [
    "effect_curves.csv",
    "differences.csv",
    "judges.csv",
    "guards.csv",
    "features.csv",
    "frontier.csv",
    "frontier_knots.csv",
    "sweep.csv",
]

#: Settings that determine the table of examples.
EXAMPLE_SETTINGS = [
    "seed",
    "rows_per_class",
    "train_fraction",
    "validation_fraction",
    "test_fraction",
    "probe_folds",
    "max_tokens",
    "long_texts",
    "chat_template",
]

#: Settings that determine the table of prompts.
PROMPT_SETTINGS = [
    "max_tokens",
    "long_texts",
    "chat_template",
    "n_prompts",
    "n_validation_prompts",
]


#: The labelled rows of an experiment, all of them.
DATASET = "results/{experiment}/dataset.parquet"


#: When this run began: verdicts that are older are of earlier runs.
STARTED = time.time()


def verdicts_made():
    """Return what this run found: the whole verdict of one experiment, the headlines of several."""
    from steering_core.tables.verdict import spoken  # the start of a run needs no pandas

    files = [Path("results", name, "verdict.json") for name in EXPERIMENTS]
    made = [file for file in files if file.exists() and file.stat().st_mtime >= STARTED]
    lines = []
    for file in made:
        headline, *others = spoken(read_json(file))
        lines.append(f"{file.parent.name}: {headline}")
        lines += others if len(made) == 1 else []
        lines.append(f"  python -m steering_core.tables.show {file.with_name('pareto.csv')}")
    return lines


wildcard_constraints:
    experiment="|".join(EXPERIMENTS),
    run="|".join(CORRSTEER) or "(?!)",
    method="|".join([*METHODS, *PLANS, *PROGRAMS, *GATED]),
    shard=r"\d+",
    model="|".join(TRAINED) or "(?!)",
    layer=r"\d+",
    gguf="|".join(map(re.escape, GGUF)) or "(?!)",
    concept_set="|".join(CONCEPT_SETS) or "(?!)",


# ------------------------------------------------------------------ checks before any job
def targets_known():
    """Return whether this is the main process and the requested targets are known.

    They are known once the first job is made. The process of a single job only knows that job.
    """
    return workflow.is_main_process and workflow.dag_settings is not None


@cache
def check_request():
    """Refuse a setting given with `--config` that has no effect on this run; runs once."""
    if not targets_known():
        return
    overrides = workflow.config_settings.config
    requested = requested_experiments(workflow.dag_settings.targets, CORRSTEER, TABLE_RUNS)
    for warning in check_top_level(config, overrides, requested.kinds):
        logger.warning(f"config: {warning}")
    tasks = {name: configured_task(found.task) for name, found in requested.runs.items()}
    check_options(overrides, requested.runs, tasks, OPTIONS)


def check_files(found):
    """Refuse an experiment with a list of all that is wrong with its files and its rows.

    This runs for the parameters of every job. A check in the inputs of a rule would be skipped if
    the results of that rule exist.
    """
    if not targets_known():
        return
    check_before_any_job(found, dataset_of(found), made_here)


@cache
def checked_experiment(name, configuration):
    """Return the experiment `name`, cached because every parameter of a job needs it."""
    found = resolve(config, name)
    check_plans(found, CORRSTEER)
    check_guards(config, found)
    check_files(found)
    return found


@cache
def check_run(name):
    """Check the files of the CorrSteer experiment `name`, once."""
    check_files(CORRSTEER[name])


def experiment(wildcards):
    """Return the experiment of a job, with its merged settings, after all checks."""
    check_request()
    if hasattr(wildcards, "run"):
        check_run(wildcards.run)
        return CORRSTEER[wildcards.run]
    return checked_experiment(wildcards.experiment, repr(config))


# ----------------------------------------------------------------------------- parameters
def settings(*names):
    """Return a parameter with the named settings. A stage reruns when one of them changes."""
    return lambda wildcards: {name: getattr(experiment(wildcards).settings, name) for name in names}


def setting(name):
    """Return a parameter with one setting, as plain values."""
    return lambda wildcards: experiment(wildcards).settings.model_dump(include={name})[name]


def target_class(wildcards):
    """Return the class that the task steers to."""
    return experiment(wildcards).task.target_class


@cache
def read_concept_file(path, written):
    """Read a concept file; `written` is the time of its last change."""
    return read_concept(path)


def concept_of(wildcards):
    """Return the texts of the concept of an experiment; None until a rule has made its file."""
    path = Path(experiment(wildcards).task.concept)
    return read_concept_file(str(path), path.stat().st_mtime_ns) if path.is_file() else None


def concept_texts(*roles):
    """Return a parameter with a digest of these texts of the concept, not of the whole file.

    Snakemake asks again when a job is ready, so the file is there.
    """

    def digest(wildcards):
        texts = concept_of(wildcards)
        return None if texts is None else json_digest(texts.model_dump(include={*roles}))

    return digest


@cache
def prompts_in(dataset, written, concept, questions):
    """Return the prompts that are also rows of a dataset; `concept` is a file and its time."""
    from pandas import read_parquet

    from steering_core.data.build import prompts_among_rows

    rows = read_parquet(dataset, columns=["text", "group"])
    return prompts_among_rows(rows, read_concept_file(*concept), questions=questions)


def prompts_left_out(wildcards):
    """Return the prompts that are also rows of the dataset, as the examples leave these rows out.

    Before the dataset is fetched nothing is known. Snakemake asks again when the job is ready.
    """
    found, dataset = experiment(wildcards).task, DATASET.format(experiment=wildcards.experiment)
    if not Path(dataset).is_file():
        return []
    times = [Path(path).stat().st_mtime_ns for path in (dataset, found.concept)]
    return prompts_in(dataset, times[0], (found.concept, times[1]), found.question is not None)


def section(found):
    """Return a section as plain values, without its settings, which are passed by name."""
    # The stages read trained SAEs from their path, whatever they were trained on.
    return found.model_dump(exclude={"settings": True, "paired": True, "sae": {"train"}})


def model(wildcards):
    """Return the section of the model; a GGUF file is replaced by the directory made from it."""
    return section(with_directory(experiment(wildcards).model))


def task(wildcards):
    """Return the section of the task."""
    return section(experiment(wildcards).task)


def resolved(found):
    """Return the whole experiment as plain values: model, task and every setting."""
    trained = found.model.sae.train
    return {
        **({"sae_training": trained.model_dump()} if trained else {}),
        "model": section(found.model),
        "task": section(found.task),
        "settings": found.settings.model_dump(),
    }


def checked(parameter):
    """Return a parameter that a stage only checks: a new value makes no result stale."""
    # Snakemake does not compare parameters that depend on `input`: it assumes that they change
    # only with the input.
    return lambda wildcards, input: parameter(wildcards)


def code(script):
    """Return a digest of a script and the modules it uses; a change of either reruns the rule."""
    return code_digest(workflow.source_path(f"../workflow_scripts/{script}"))


def codes_of(*files):
    """Return the digest of every script in these rule files, by the script's name."""
    scripts = {
        Path(rule.script).name
        for rule in workflow.rules
        if rule.script is not None and Path(rule.snakefile).stem in files
    }
    return {script: code(script) for script in sorted(scripts)}


# --------------------------------------------------------------------------------- inputs
def all_methods(wildcards):
    """Return the methods, plans and declared programs of the experiment."""
    return [*experiment(wildcards).settings.methods, *plans(wildcards)]


def methods_of(pattern):
    """Return an input with the tables of all methods: a file for each of the jobs that share them."""
    return lambda wildcards: expand(
        pattern,
        experiment=wildcards.experiment,
        shard=range(min(experiment(wildcards).settings.shards, len(all_methods(wildcards)))),
    )


def plans(wildcards):
    """The names of what is evaluated like methods: CorrSteer plans, declared programs, gates."""
    found = experiment(wildcards).settings
    return [*found.plans, *found.programs, *found.gated]


def made_here(path):
    """Return whether a rule makes this file or a directory that contains it."""
    names = [str(name) for name in (Path(path), *Path(path).parents)]
    # As a module of another workflow, the rules have a prefix.
    makers = [maker for maker in workflow.rules if not maker.name.endswith("unknown_target")]
    return any(maker.is_producer(name) for maker in makers for name in names)


def results_made(*names):
    """Return an input: those of an experiment's results that a rule makes."""
    return lambda wildcards: [
        path
        for path in (f"results/{wildcards.experiment}/{name}" for name in names)
        if made_here(path)
    ]


def layer_results(wildcards):
    """Return the names of the results of `layer: effect`, of an experiment that has it."""
    chosen = experiment(wildcards).settings.layer == "effect"
    return ["layer_effect.csv", "layer_effect.svg"] if chosen else []


def elsewhere_results(wildcards):
    """Return the results about the cost elsewhere, if the experiment looks there."""
    looks = experiment(wildcards).settings.elsewhere
    return ["elsewhere.csv", "elsewhere.svg"] if looks else []


def ratings(wildcards):
    """Return the table of ratings, if a judge of the task is behind a server."""
    rated = any(judge.api is not None for judge in experiment(wildcards).task.judges)
    return ["ratings.csv"] if rated else []


def further_results(wildcards):
    """Return the results that only some experiments have."""
    return [*layer_results(wildcards), *elsewhere_results(wildcards), *ratings(wildcards)]


def product_codes(wildcards):
    """Return the digest of each script that makes a product, and no row, by the script's name."""
    files = ["layer_sweep", "answer", "products"]
    if not elsewhere_results(wildcards):
        return codes_of(*files, *["ratings"] * bool(ratings(wildcards)))
    questions = {script: code(script) for script in ("corrsteer_fetch.py", "corrsteer_examples.py")}
    return {**codes_of(*files, "elsewhere", *["ratings"] * bool(ratings(wildcards))), **questions}


def page_pictures(wildcards):
    """Return the further pictures on the page of an experiment."""
    more = [name for name in elsewhere_results(wildcards) if name.endswith(".svg")]
    return results_made("matched.svg", "price.svg", "dose.svg", *more)(wildcards)


def other_results(wildcards):
    """Return the names of the results that the page of an experiment links to."""
    further = results_made("summary.csv", "verdict.json", "matched.csv", "effect_curves.csv")
    names = [
        *PRODUCTS,
        *BESIDE,
        *further_results(wildcards),
        *(Path(path).name for path in further(wildcards)),
    ]
    return [name for name in dict.fromkeys(names) if name != "index.html"]


def exported_methods(wildcards):
    """Return the methods whose interventions can be exported, in the order of the settings."""
    folder = f"results/{wildcards.experiment}/exports"
    # The first two add no vector, and no export has gates.
    others = (BASELINE, PROMPTING, *experiment(wildcards).settings.gated)
    vectors = [name for name in all_methods(wildcards) if name not in others]
    return [name for name in vectors if made_here(f"{folder}/{name}")]


def target_in_words(wildcards):
    """Return the class that an experiment steers to, in words."""
    found = experiment(wildcards)
    label = found.task.label or "positive and negative texts"
    return f"class {found.task.target_class} of the task {found.task_name} ({label})"


def dataset_of(found):
    """Return the dataset of an experiment. A CorrSteer task has one by default."""
    corrsteer = found.name in CORRSTEER
    return configured_task(found.task).source.dataset if corrsteer else found.task.dataset


def local_sources(wildcards):
    """Return model, SAEs, dataset and lexicon if they are local files or made by other rules."""
    found = experiment(wildcards)
    lexicons = [judge.lexicon for judge in getattr(found.task, "judges", [])]
    names = [with_directory(found.model).id, dataset_of(found), *lexicons]
    if found.model.sae.train is not None:
        return [*there(names), *trained_saes(found)]
    return there([*names, found.model.sae.path])


def trained_saes(found):
    """Return the SAEs of a model that the rules train, and the table of what they are worth."""
    layers = found.model.sae.train.layers
    saes = [found.model.sae.path.format(layer=layer) for layer in layers]
    return [*saes, f"{Path(found.model.sae.path).parent}.csv"]


def table_of_saes(wildcards):
    """Return the table of what an experiment's SAEs are worth, if the rules trained them."""
    found = experiment(wildcards).model
    return [] if found.sae.train is None else [f"{Path(found.sae.path).parent}.csv"]


def there(names):
    """Return the paths among `names` that are there or that a rule makes."""
    paths = [fixed_part(name) for name in names if name]
    return [path for path in paths if made_here(path) or Path(path).exists()]


def gguf_file(wildcards):
    """Return the GGUF file of a directory, if it is on this machine."""
    path = gguf_path(GGUF[wildcards.gguf].id)
    return [str(path)] if path.is_file() else []


def training_sources(wildcards):
    """Return the model and the datasets of a training that are local or made by other rules."""
    found = TRAINED[wildcards.model]
    return there([found.id, *(texts.dataset for texts in found.sae.train.texts)])


# ------------------------------------------------------------------------ training of SAEs
def trained_model(wildcards):
    """Return the section of a model whose SAEs are trained."""
    return section(TRAINED[wildcards.model])


def without_one_layer(wildcards):
    """Refuse a request for the SAE of one layer: the table keeps the cache until all are trained."""
    table = f"results/models/{wildcards.model}/sparse_autoencoders.csv"
    alone = f"{Path(table).with_suffix('')}/layer_{wildcards.layer}"
    if targets_known():
        asked = set(map(str, workflow.dag_settings.targets))
        if asked & {alone, f"{alone}.json"} and table not in asked:
            raise ConfigError(
                f"{alone} is not made alone: ask for {table}. To train fewer layers, list fewer "
                "in sae.train.layers; one that is there is not trained again."
            )


def training(*names):
    """Return a parameter with the named keys of `sae.train`."""
    return lambda wildcards: TRAINED[wildcards.model].sae.train.model_dump(include={*names})


def training_device(wildcards):
    """Return the device of all experiments, as a training belongs to none of them."""
    return config.get("device", config.get("settings", {}).get("device", "auto"))


def gpus_for_training(wildcards):
    """Return the number of GPUs of a job that trains SAEs or fills their cache."""
    return gpus_of(training_device(wildcards))


# ------------------------------------------------------------------------------ resources
@cache
def sizes_in(path, written):
    """Return the sizes of a fetched model and its SAEs; `written` is the time of the file."""
    return read_sizes(path)


def sizes(wildcards):
    """Return the sizes of the model and the SAEs of a job; None until they are fetched.

    Snakemake asks again when a job is ready, and then they are.
    """
    name = wildcards.run if hasattr(wildcards, "run") else wildcards.experiment
    path = Path("results", name, "resources.json")
    return sizes_in(path, path.stat().st_mtime_ns) if path.is_file() else None


def megabytes(first, **times):
    """Return the memory of a job in MB, doubled on every retry.

    With `model`, `sae` or `judges`, how many times the size of each the job needs, it follows from
    these sizes. `first` is the request without them, and until they are fetched.
    """

    def request(wildcards, attempt):
        found = sizes(wildcards) if times else None
        needed = first if found is None else found.megabytes(**times)
        return needed * 2 ** (attempt - 1)

    return request


def cores(wildcards):
    """Return the number of cores of a job that runs the model or reads what it was fitted on."""
    found = sizes(wildcards)
    return 2 if found is None else found.cores


def minutes(first):
    """Return the time limit of a job in minutes, doubled on every retry."""
    return lambda wildcards, attempt: first * 2 ** (attempt - 1)


@cache
def gpus_of(device):
    """Return the number of GPUs of a job; warn once if `auto` cannot see the GPUs of the nodes."""
    found = gpus_on(device)
    if device == "auto" and not found and workflow.is_main_process and not workflow.local_exec:
        logger.warning(
            "device: auto finds no GPU on this machine, which submits the jobs, so all jobs run on "
            "CPUs. If the nodes have GPUs, give --config device=cuda."
        )
    return found


def gpus(wildcards):
    """Return the number of GPUs of a job that runs the experiment's model."""
    return gpus_of(experiment(wildcards).settings.device)


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
    programs = experiment(wildcards).settings.programs.values()
    if any(one.needs_fisher or one.needs_likelihood_gradient for one in programs):
        files.append("gradients")
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
    """Return the user's own files that stages read directly: concept texts and lexicon."""
    found = experiment(wildcards).task
    lexicons = [judge.lexicon for judge in found.judges if judge.lexicon is not None]
    return [found.concept, *lexicons]
