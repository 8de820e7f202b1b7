"""What a run of Snakemake was asked for, and whether its command line makes sense.

Most settings belong to one of the two kinds of experiments, which share the top level of the
configuration. A setting that no requested experiment reads would have no effect and look as if it
had one, so it is refused here. So are targets that no rule makes, with the nearest one that exists.
"""

import difflib
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, NoReturn

from steering_core.config.corrsteer_resolve import resolve_corrsteer
from steering_core.config.corrsteer_schema import CorrSteerExperiment, CorrSteerSettings
from steering_core.config.methods import BASELINE, LORA, WITHOUT_VECTOR
from steering_core.config.resolve import resolve
from steering_core.config.schema import Settings
from steering_core.config.validation import hint
from steering_core.errors import ConfigError

#: Both kinds of experiments: the table that each delivers, and the schema of its settings.
EXPERIMENT_KINDS = {"pareto.csv": Settings, "corrsteer.csv": CorrSteerSettings}
PARETO, CORRSTEER = EXPERIMENT_KINDS

_NULLS = ("null", "Null", "NULL", "~")


# -------------------------------------------------------------------------- command line
def with_nulls(config: Any, overrides: Any) -> Any:
    """Return ``config`` with None wherever ``overrides`` has YAML's word for null.

    Snakemake leaves this word as text in the values of ``--config``.

    Args:
        config: the merged configuration.
        overrides: the part of it that was given with ``--config``, as Snakemake parsed it.

    """
    if isinstance(overrides, str):
        return None if overrides in _NULLS else config
    if isinstance(overrides, Mapping) and isinstance(config, Mapping):
        changed = {key: with_nulls(config[key], value) for key, value in overrides.items()}
        return {**config, **changed}
    if isinstance(overrides, list) and isinstance(config, list) and len(overrides) == len(config):
        return [with_nulls(*pair) for pair in zip(config, overrides, strict=True)]
    return config


def check_config_files(files: Iterable[str | Path], directory: str | Path) -> None:
    """Refuse targets that Snakemake took for configuration files.

    Snakemake reads everything after ``--configfile`` as a configuration file, targets too. It fails
    by itself, before it reads the Snakefile, if such a target is missing or is not JSON or YAML.
    Other targets would be merged into the configuration.

    Args:
        files: the configuration files, as Snakemake took them.
        directory: the working directory of the workflow.

    Raises:
        ConfigError: naming the targets, with the right order.

    """
    files = [Path(directory, file).resolve() for file in files]
    results = Path(directory, "results").resolve()
    targets = [file for file in files if file.is_relative_to(results)]
    if targets:
        names = " ".join(file.relative_to(results.parent).as_posix() for file in targets)
        others = " ".join(file.name for file in files if file not in targets) or "FILE"
        raise ConfigError(
            f"{names} was read as a configuration file, like everything after --configfile. "
            f"Name targets first: snakemake --cores N {names} --configfile {others}"
        )


# ----------------------------------------------------------------- requested experiments
@dataclass(frozen=True)
class Requested:
    """The experiments that a run makes.

    Attributes:
        kinds: keys of :data:`EXPERIMENT_KINDS`.
        runs: CorrSteer experiments by name, with those whose features they use.

    """

    kinds: frozenset[str]
    runs: Mapping[str, CorrSteerExperiment]


def requested_experiments(
    targets: Iterable[str],
    runs: Mapping[str, CorrSteerExperiment],
    table_runs: Collection[str],
) -> Requested:
    """Return the experiments that belong to the targets of a run.

    Args:
        targets: files and rules, as on the command line. Without any, the default rule is made.
        runs: all CorrSteer experiments, by name.
        table_runs: names of the CorrSteer experiments in the published tables.

    """
    kinds: set[str] = set()
    names: set[str] = set()
    for target in targets:
        path = re.search(r"(?:^|/)results/([^/]+)/", target)
        folder = path[1] if path else None
        if folder in runs:
            names.add(folder)
        elif target == "corrsteer":
            names |= set(runs)
        elif folder == "tables" and Path(target).name.startswith("axbench_"):
            kinds.add(PARETO)
            continue
        elif folder == "tables" or (folder is None and target.startswith("corrsteer")):
            names |= set(table_runs)
        else:
            kinds.add(PARETO)
            continue
        kinds.add(CORRSTEER)
    arms = [arm for name in names for arm in runs[name].settings.arms.values()]
    names |= {arm.features_from.experiment for arm in arms if arm.features_from is not None}
    if any(arm.intervention_from is not None for arm in arms):
        kinds.add(PARETO)
    return Requested(frozenset(kinds or {PARETO}), {name: runs[name] for name in sorted(names)})


def check_top_level(
    keys: Iterable[str], overrides: Collection[str], kinds: Collection[str]
) -> list[str]:
    """Check the settings at top level; return a warning for those that some kind ignores.

    A configuration file serves many runs, so a setting in it may be for another one. A setting
    given with ``--config`` is for this run.

    Args:
        keys: the keys at the top level of the configuration.
        overrides: those of them that were given with ``--config``.
        kinds: the requested kinds of experiments.

    Raises:
        ConfigError: if a setting was given with ``--config`` and no requested experiment reads it.

    """
    ignored: dict[tuple[str, str], list[str]] = {}
    for key in keys:
        owners = [kind for kind, of in EXPERIMENT_KINDS.items() if key in of.model_fields]
        without = [kind for kind in kinds if kind not in owners]
        if not owners or not without:  # a section, or a setting of all requested kinds
            continue
        if set(without) == set(kinds) and key in overrides:
            near = hint(key, EXPERIMENT_KINDS[without[0]].model_fields)
            raise ConfigError(
                f"{key} applies only to {owners[0]} experiments, and this run makes none{near}."
            )
        ignored.setdefault((owners[0], without[0]), []).append(key)
    return [
        f"{', '.join(found)}: applies only to {owner} experiments; ignored for {other}."
        for (owner, other), found in ignored.items()
    ]


def check_options(
    overrides: Mapping[str, object],
    requested: Mapping[str, CorrSteerExperiment],
    tasks: Mapping[str, Any],
    options: Mapping[str, tuple[Callable[[Any], bool], str]],
) -> None:
    """Refuse an option that no requested CorrSteer experiment supports.

    Args:
        overrides: the settings given with ``--config``.
        requested: the requested experiments, by name.
        tasks: the task of each of them.
        options: for each option, whether a task supports it, and the reason if not.

    Raises:
        ConfigError: naming the option.

    """
    names = ", ".join(sorted({task.name for task in tasks.values()}))
    for option, (supports, why) in options.items():
        if overrides.get(option) and tasks and not any(map(supports, tasks.values())):
            raise ConfigError(f"{option} would have no effect on this run: {why} in {names}.")
    masks = {arm.mask for one in requested.values() for arm in one.settings.arms.values()}
    if overrides.get("published_mask") and requested and "all" not in masks:
        raise ConfigError("published_mask would have no effect on this run: no arm has mask: all.")


# ----------------------------------------------------------------------- unknown targets
def files_made(
    patterns: Iterable[str], values: Mapping[str, Collection[str]]
) -> dict[str, list[str]]:
    """Return the files that rules make, by experiment, without those in deeper folders.

    Args:
        patterns: outputs of all rules, such as ``results/{experiment}/pareto.csv``.
        values: the values of each wildcard.

    """
    found: dict[str, list[str]] = {}
    for pattern in patterns:
        names = re.findall(r"{(\w+)}", pattern)
        if pattern.count("/") != 2 or not set(names) <= set(values):
            continue
        for chosen in product(*(values[name] for name in names)):
            file = pattern.format(**dict(zip(names, chosen, strict=True)))
            found.setdefault(file.split("/")[1], []).append(file)
    return found


def refuse_unknown_target(
    target: str, raw: dict[str, Any], made: Mapping[str, Collection[str]]
) -> NoReturn:
    """Refuse to make ``results/{experiment}/{file}``, naming the nearest target that exists.

    Args:
        target: the file.
        raw: the configuration.
        made: the result of :func:`files_made`.

    Raises:
        ConfigError: always.

    """
    _, name, file = target.split("/", 2)
    if name not in made:
        # This raises: it finds no such experiment and names the nearest one of its kind.
        (resolve_corrsteer if file.startswith("corrsteer") else resolve)(raw, name)
    if file.startswith("exports/"):
        check_export(file.removeprefix("exports/"), resolve(raw, name).settings)
    names = sorted(path.split("/")[2] for path in made[name])
    close = difflib.get_close_matches(file, names, n=1)
    advice = f"did you mean {close[0]}?" if close else f"there are {', '.join(names)}"
    raise ConfigError(f"no rule makes {file} of {name}: {advice}")


def check_export(method: str, settings: Settings) -> None:
    """Check that an experiment has a method that adds something, so that it can be exported.

    Args:
        method: its name.
        settings: of the experiment.

    Raises:
        ConfigError: if it does not.
    """
    known = [*settings.methods, *settings.plans, *settings.programs, *settings.gated]
    known = [name for name in known if name not in (BASELINE, *WITHOUT_VECTOR)]
    if method == LORA:
        raise ConfigError(
            f"{LORA} changes weights and adds no vector, so there is nothing to export: peft loads "
            "the directory lora of the experiment's results as an adapter."
        )
    if method in (BASELINE, *WITHOUT_VECTOR):
        raise ConfigError(f"{method} adds no vector, so there is nothing to export.")
    if method not in known:
        raise ConfigError(
            f"the experiment has no method {method} to export{hint(method, known)}: "
            f"it has {', '.join(known)}"
        )
