"""Files and directories that an experiment names, and whether they are there.

Snakemake asks for the inputs of a job only as long as its outputs are missing. Without this check
a path that is wrong would go unnoticed wherever there are results already.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Literal

from steering_core.config.corrsteer_resolve import CorrSteerExperiment
from steering_core.config.experiment import Experiment
from steering_core.config.model import Model
from steering_core.config.validation import hint
from steering_core.errors import ConfigError

Kind = Literal["file", "directory", "file or directory"]

#: What a local table is called; :mod:`steering_core.data.sources` reads each.
TABLES = (".csv", ".jsonl", ".parquet")
_LAYER = re.compile(r"\{layer[^}]*\}")


@dataclass(frozen=True)
class NamedPath:
    """A path and the key of the configuration that names it."""

    key: str
    path: str
    kind: Kind


def is_path(name: str) -> bool:
    """Whether ``name`` can only be a path; the id of a hub repository is ``name`` or ``org/name``.

    A name that could be either is one on the hub if it is not here, and the fetch stage says so.
    """
    return name.startswith(("/", ".", "~", "results/")) or name.count("/") > 1 or name[-1:] == "/"


def experiment_paths(found: Experiment) -> list[NamedPath]:
    """Return every path that an experiment names."""
    settings, task = found.settings, found.task
    layers = settings.layers if isinstance(settings.layers, list) else []
    if isinstance(settings.layer, int):
        layers = sorted({*layers, settings.layer})
    paths = list(_model_paths(f"models.{found.model_name}", found.model, layers))
    key = f"tasks.{found.task_name}"
    paths += _dataset_paths(f"{key}.dataset", task.dataset)
    paths.append(NamedPath(f"{key}.concept", task.concept, "file"))
    judge = task.classifier
    if judge is not None and judge.lexicon is not None:
        paths.append(NamedPath(f"{key}.classifier.lexicon", judge.lexicon, "file"))
    if judge is not None and judge.model is not None and is_path(judge.model):
        paths.append(NamedPath(f"{key}.classifier.model", judge.model, "directory"))
    return paths


def corrsteer_paths(found: CorrSteerExperiment, dataset: str) -> list[NamedPath]:
    """Return every path that a CorrSteer experiment names; ``dataset`` is that of its task."""
    layers = found.settings.layers if isinstance(found.settings.layers, list) else []
    key = f"corrsteer.models.{found.model_name}"
    return [
        *_model_paths(key, found.model, layers),
        *_dataset_paths(f"corrsteer.tasks.{found.task_name}.dataset", dataset),
    ]


def check_paths(named: Iterable[NamedPath], made: Callable[[str], bool]) -> None:
    """Refuse paths that are not there.

    Args:
        named: the paths of an experiment.
        made: whether a rule of the workflow makes a path; such a one may be missing.

    Raises:
        ConfigError: naming each missing path, its key, and the nearest name beside it.

    """
    missing = [one for one in named if not made(fixed_part(one.path)) and not _is_there(one)]
    if missing:
        listed = "; ".join(
            f"{one.key}: there is no {one.kind} {one.path}{_advice(one.path)}" for one in missing
        )
        raise ConfigError(f"{listed}. No rule makes it: correct the path, or put it there.")


def fixed_part(path: str) -> str:
    """Return ``path`` up to the part that stands for a layer, all of it if there is none."""
    parts = Path(path).parts
    fixed = next((i for i, part in enumerate(parts) if "{" in part), None)
    return path if fixed is None else str(Path(*parts[:fixed]))


def _model_paths(key: str, model: Model, layers: list[int]) -> Iterator[NamedPath]:
    if is_path(model.id):
        yield NamedPath(f"{key}.id", model.id, "directory")
    sae = model.sae
    if sae.path is not None:
        for path in [sae.path.format(layer=layer) for layer in layers] or [sae.path]:
            yield NamedPath(f"{key}.sae.path", path, "directory")


def _dataset_paths(key: str, dataset: str) -> Iterator[NamedPath]:
    if Path(dataset).suffix in TABLES:
        yield NamedPath(key, dataset, "file")
    elif is_path(dataset):
        yield NamedPath(key, dataset, "file or directory")


def _is_there(named: NamedPath) -> bool:
    if _LAYER.search(named.path):  # for any layer
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
