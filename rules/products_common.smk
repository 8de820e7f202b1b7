# Shared by the rules of the products: the results that only some experiments have, what the page
# names, and what a run says at its end.
import time
from pathlib import Path

from steering_core.config.methods import BASELINE, WITHOUT_VECTOR
from steering_core.storage.files import read_json

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
    questions = {
        script: digest_of(script) for script in ("corrsteer_fetch.py", "corrsteer_examples.py")
    }
    return {**codes_of(*files, "elsewhere", *["ratings"] * bool(ratings(wildcards))), **questions}


def page_pictures(wildcards):
    """Return the further pictures on the page of an experiment."""
    more = [name for name in elsewhere_results(wildcards) if name.endswith(".svg")]
    declared = experiment(wildcards).settings.programs.values()
    # Without counts of features the picture of prices has nothing to show.
    priced = ["price.svg"] if any(one.features is not None for one in declared) else []
    return results_made("matched.svg", *priced, "dose.svg", *more)(wildcards)


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
    others = (BASELINE, *WITHOUT_VECTOR)
    vectors = [name for name in all_methods(wildcards) if name not in others]
    return [name for name in vectors if made_here(f"{folder}/{name}")]


def target_in_words(wildcards):
    """Return the class that an experiment steers to, in words."""
    found = experiment(wildcards)
    label = found.task.label or "positive and negative texts"
    return f"class {found.task.target_class} of the task {found.task_name} ({label})"
