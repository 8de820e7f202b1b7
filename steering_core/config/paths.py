"""The files and directories that an experiment names, and the check that they exist.

Snakemake looks for the inputs of a job only if its outputs are missing. Without this check, a wrong
path would go unnoticed once there are results.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Literal

from steering_core.config.corrsteer_schema import CorrSteerTask
from steering_core.config.gguf import gguf_path, is_gguf
from steering_core.config.model import Model
from steering_core.config.schema import Experiment
from steering_core.config.task import Classifier, Task
from steering_core.config.validation import hint
from steering_core.errors import ConfigError

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
