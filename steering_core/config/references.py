"""What an experiment refers to: files and directories, and other experiments; the checks of both.

Snakemake looks for the inputs of a job only if its outputs are missing. Without a check, a wrong
path would go unnoticed once there are results. What one experiment takes from another (plans,
methods, guards and features) is refused if the other does not have it or runs another model.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any, Literal

from steering_core.config.corrsteer_schema import (
    Arm,
    CorrSteerExperiment,
    CorrSteerTask,
    MethodSource,
)
from steering_core.config.methods import BASELINE, METHODS, strength_grid
from steering_core.config.model import Model
from steering_core.config.prepared_models import gguf_path, is_gguf
from steering_core.config.resolve import resolve
from steering_core.config.schema import Experiment, ParetoExperiment
from steering_core.config.task import Classifier, Task
from steering_core.config.validation import hint
from steering_core.errors import ConfigError

# --------------------------------------------------------------------- files and directories
Kind = Literal["file", "directory", "file or directory"]

#: File formats of a local dataset. :mod:`steering_core.data.sources` reads each.
TABLES = (".csv", ".jsonl", ".parquet")
_LAYER = re.compile(r"\{layer[^}]*\}")


@dataclass(frozen=True)
class NamedPath:
    """A path, and the key of the configuration that names it."""

    key: str
    path: str
    kind: Kind


def is_path(name: str) -> bool:
    """Whether ``name`` can only be a path. A hub repository is called ``name`` or ``org/name``.

    A name that could be either stands for a hub repository unless there is such a path. The fetch
    stage reports one that does not exist.
    """
    return name.startswith(("/", ".", "~", "results/")) or name.count("/") > 1 or name[-1:] == "/"


def named_paths(experiment: Experiment, dataset: str) -> list[NamedPath]:
    """Return every path that an experiment of either kind names.

    Args:
        experiment: with its merged settings.
        dataset: the dataset of its task. A CorrSteer task has one by default.

    Raises:
        ConfigError: if the model is a GGUF file in a package that is not installed.

    """
    settings, task = experiment.settings, experiment.task
    prefix = "corrsteer." if isinstance(task, CorrSteerTask) else ""
    layers = set(settings.layers) if isinstance(settings.layers, list) else set()
    if isinstance(task, Task) and isinstance(settings.layer, int):
        layers.add(settings.layer)
    elif isinstance(task, Task) and settings.layer == "effect":
        layers |= set(settings.effect_layers)
    of_task = f"{prefix}tasks.{experiment.task_name}"
    paths = [
        *_model_paths(f"{prefix}models.{experiment.model_name}", experiment.model, sorted(layers)),
        *_dataset_paths(f"{of_task}.dataset", dataset),
    ]
    if isinstance(task, Task):
        paths.append(NamedPath(f"{of_task}.concept", task.concept, "file"))
        if "text" in settings.elsewhere:
            paths += _dataset_paths("elsewhere_text.dataset", settings.elsewhere_text.dataset)
        for name, program in settings.programs.items():
            key = f"programs.{name}.guards.concept"
            paths += [NamedPath(key, file, "file") for file in program.guarding_concepts]
        for judge in task.judges:
            paths += _judge_paths(f"{of_task}.classifier", judge)
    return paths


def check_paths(named: Iterable[NamedPath], made: Callable[[str], bool]) -> None:
    """Refuse paths that do not exist.

    Args:
        named: the paths of an experiment.
        made: whether a rule of the workflow makes a path. Such a path may be missing.

    Raises:
        ConfigError: naming each missing path, its key, and the nearest name beside it.

    """
    missing = [
        f"{one.key}: there is no {one.kind} {one.path}{_advice(one.path)}"
        for one in named
        if not made(fixed_part(one.path)) and not _is_there(one)
    ]
    if missing:
        advice = "No rule makes it: correct the path, or create it."
        listed = [f"{one}. {advice}" for one in missing]
        raise ConfigError(f"{'; '.join(missing)}. {advice}").of(listed)


def fixed_part(path: str) -> str:
    """Return the part of ``path`` before the first folder with ``{layer}``; without one, all."""
    parts = Path(path).parts
    fixed = next((i for i, part in enumerate(parts) if "{" in part), None)
    return path if fixed is None else str(Path(*parts[:fixed]))


def _model_paths(key: str, model: Model, layers: list[int]) -> Iterator[NamedPath]:
    if is_gguf(model.id):
        yield NamedPath(f"{key}.id", str(gguf_path(model.id)), "file")
    elif is_path(model.id):
        yield NamedPath(f"{key}.id", model.id, "directory")
    sae = model.sae
    if sae.train is not None:  # rules make them
        for texts in sae.train.texts:
            yield from _dataset_paths(f"{key}.sae.train.texts", texts.dataset)
    elif sae.path is not None:
        for path in [sae.path.format(layer=layer) for layer in layers] or [sae.path]:
            yield NamedPath(f"{key}.sae.path", path, "directory")


def _dataset_paths(key: str, dataset: str) -> Iterator[NamedPath]:
    if Path(dataset).suffix in TABLES:
        yield NamedPath(key, dataset, "file")
    elif is_path(dataset):
        yield NamedPath(key, dataset, "file or directory")


def _judge_paths(key: str, judge: Classifier | None) -> Iterator[NamedPath]:
    if judge is not None and judge.lexicon is not None:
        yield NamedPath(f"{key}.lexicon", judge.lexicon, "file")
    if judge is not None and judge.model is not None and is_path(judge.model):
        yield NamedPath(f"{key}.model", judge.model, "directory")


def _is_there(named: NamedPath) -> bool:
    if _LAYER.search(named.path):  # one for any layer is enough
        fixed = Path(fixed_part(named.path))
        rest = str(Path(named.path).relative_to(fixed))
        pattern = "*".join(escape(part) for part in _LAYER.split(rest))
        return any(found.is_dir() for found in fixed.glob(pattern))
    path = Path(named.path)
    if named.kind == "file or directory":
        return path.exists()
    return path.is_file() if named.kind == "file" else path.is_dir()


def _advice(name: str) -> str:
    if name.startswith("~"):
        return " (write the path of your home directory instead of ~)"
    folder = Path(name).parent
    if not folder.is_dir():
        return ""
    return hint(name, [str(folder / entry.name) for entry in folder.iterdir()])


# --------------------------------------------------------------------- other experiments
def check_plans(experiment: ParetoExperiment, runs: Mapping[str, CorrSteerExperiment]) -> None:
    """Refuse a plan that cannot be evaluated in ``experiment``, with the reason.

    Args:
        experiment: delivers pareto.csv.
        runs: all CorrSteer experiments, by name.

    Raises:
        ConfigError: naming the plan.
    """
    for name, plan in experiment.settings.plans.items():
        where = f"experiments.{experiment.name}: plans.{name}"
        if plan.experiment not in runs:
            raise ConfigError(
                f"{where}: there is no CorrSteer experiment {plan.experiment!r}"
                f"{hint(plan.experiment, runs)}"
            )
        run = runs[plan.experiment]
        arms = {key: arm for key, arm in run.settings.arms.items() if arm.intervention_from is None}
        if plan.arm not in arms:
            raise ConfigError(
                f"{where}: {run.name} has no plan of an arm {plan.arm!r}{hint(plan.arm, arms)}"
            )
        if plan.seed not in run.settings.seeds:
            raise ConfigError(
                f"{where}: {run.name} has the seeds {run.settings.seeds}, not {plan.seed}."
            )
        mine, theirs = _model_of(experiment), _model_of(run)
        if mine != theirs:
            raise ConfigError(
                f"{where}: {run.name} steers the model {' '.join(theirs)}, and {experiment.name} "
                f"runs {' '.join(mine)}: a plan acts on the model that it was made for alone."
            )


def check_guards(raw: dict[str, Any], experiment: ParetoExperiment) -> None:
    """Refuse a guard with the probe of an experiment that has none of the same residuals.

    Args:
        raw: the configuration, for the other experiments.
        experiment: whose programs have guards.

    Raises:
        ConfigError: naming the program.
    """
    for name, program in experiment.settings.programs.items():
        where = f"experiments.{experiment.name}: programs.{name}.guards"
        for other in program.guarding_experiments:
            known = raw.get("experiments", {})
            if other not in known:
                raise ConfigError(f"{where}: there is no experiment {other!r}{hint(other, known)}")
            theirs = resolve(raw, other)
            if _model_of(theirs) != _model_of(experiment):
                raise ConfigError(
                    f"{where}: {other} runs another model, so its probe means nothing here: name "
                    f"an experiment on the model of {experiment.name}"
                )
            layers = {experiment.settings.layer, theirs.settings.layer} - {"auto"}
            if len(layers) > 1:
                raise ConfigError(
                    f"{where}: {other} has its probe at layer {theirs.settings.layer}, and "
                    f"{experiment.name} steers layer {experiment.settings.layer}: set the same"
                )


def check_methods_of_experiments(
    raw: dict[str, Any], found: dict[str, CorrSteerExperiment]
) -> None:
    """Refuse ``intervention_from`` if it cannot be evaluated there, with the reason.

    One rule answers such arms and another all other arms, so a name must be of one kind.

    Raises:
        ConfigError: naming the arm.
    """
    own: dict[str, str] = {}
    for experiment in found.values():
        for name, arm in experiment.settings.arms.items():
            if arm.intervention_from is not None:
                own[name] = experiment.name
    if not own:
        return
    for experiment in found.values():
        for name, arm in experiment.settings.arms.items():
            where = f"corrsteer {experiment.name}: arms.{name}"
            if arm.intervention_from is not None:
                _check_method(f"{where}.intervention_from", experiment, arm.intervention_from, raw)
            elif name in own:
                raise ConfigError(
                    f"{where}: {own[name]} has an arm of that name with intervention_from: give "
                    "one of them another name."
                )


def _check_method(
    where: str, experiment: CorrSteerExperiment, source: MethodSource, raw: dict[str, Any]
) -> None:
    known = raw.get("experiments", {})
    if source.experiment not in known:
        raise ConfigError(
            f"{where}: there is no experiment {source.experiment!r} that delivers pareto.csv"
            f"{hint(source.experiment, known)}"
        )
    other = resolve(raw, source.experiment)
    mine, theirs = _model_of(experiment), _model_of(other)
    if mine != theirs:
        raise ConfigError(
            f"{where}: {other.name} steers the model {' '.join(theirs)}, and {experiment.name} "
            f"runs {' '.join(mine)}: a method acts on the model that it was fitted on alone."
        )
    if source.method == BASELINE:
        raise ConfigError(f"{where}.method: {BASELINE} is the unsteered model, which always runs.")
    own = other.settings
    known = [*own.methods, *own.plans, *own.programs, *own.gated]
    if source.method not in known:
        raise ConfigError(
            f"{where}: {source.method} is not among the methods of {other.name}"
            f"{hint(source.method, known)}: {', '.join(known)}."
        )
    if source.strength == "selected":
        if not other.settings.n_validation_prompts:
            raise ConfigError(
                f"{where}: {other.name} selects no strength, since its n_validation_prompts is 0: "
                "name a strength."
            )
        return
    if source.method not in METHODS:
        raise ConfigError(
            f"{where}.strength: {source.method} is no registered method, so only `selected` can be "
            "given."
        )
    grid = strength_grid(source.method, other.settings)
    if source.strength.parts() not in grid:
        listed = "; ".join(
            ", ".join(f"{key}: {value:g}" for key, value in point.items()) for point in grid
        )
        raise ConfigError(
            f"{where}.strength is not a strength of {other.name}: give one of {listed}."
        )


def check_transfer(where: str, arm: Arm, found: dict[str, CorrSteerExperiment]) -> None:
    """Refuse ``features_from`` if it names no arm that selects features.

    Raises:
        ConfigError: naming ``where``.
    """
    source = arm.features_from
    if source is None:
        return
    if source.experiment not in found:
        raise ConfigError(
            f"{where}: there is no CorrSteer experiment {source.experiment!r}"
            f"{hint(source.experiment, found)}"
        )
    arms = found[source.experiment].settings.arms
    if source.arm not in arms or not arms[source.arm].selects:
        raise ConfigError(
            f"{where}: {source.experiment} selects no features for an arm {source.arm!r}"
            f"{hint(source.arm, (name for name in arms if arms[name].selects))}"
        )


def _model_of(found: ParetoExperiment | CorrSteerExperiment) -> tuple[str, str, str]:
    return found.model.id, found.model.revision, found.model.dtype
