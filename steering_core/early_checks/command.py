"""List all that is wrong with some experiments: files, settings, and what the hub would refuse.

``python -m steering_core.early_checks NAME …`` is the command.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steering_core.config.methods import LORA
from steering_core.config.model import Model
from steering_core.config.references import is_path
from steering_core.config.task import Task
from steering_core.early_checks.fetch_stage import check_adapter
from steering_core.early_checks.offline import BeforeAnyJob, lacks_room, most_new_tokens
from steering_core.errors import ConfigError, SteeringError

if TYPE_CHECKING:
    from steering_core.config.schema import Experiment


def main(arguments: Sequence[str] | None = None) -> int:
    """List all that is wrong with some experiments; return 1 if anything is, else 0."""
    parser = argparse.ArgumentParser(
        prog="python -m steering_core.early_checks",
        description="List all that is wrong with experiments: files, settings, and the hub.",
    )
    parser.add_argument("names", nargs="+", help="experiments of config.yaml")
    parser.add_argument("--configfile", nargs="+", default=[], help="files of further settings")
    parser.add_argument("--offline", action="store_true", help="do not ask the hub")
    given = parser.parse_args(arguments)
    try:
        raw = _merged(["config.yaml", *given.configfile])
        found = list_problems(raw, given.names, ask_hub=not given.offline)
    except ConfigError as error:
        found = {"the configuration": list(error.problems or (str(error),))}
    for name, lines in found.items():
        print(f"{name}:", *lines, sep="\n  - ")
    if not found:
        print(f"nothing is wrong with {', '.join(given.names)}")
    return int(bool(found))


def list_problems(
    raw: Mapping[str, Any], names: Sequence[str], *, ask_hub: bool
) -> dict[str, list]:
    """Return the problems of every named experiment that has any.

    Args:
        raw: the whole configuration.
        names: of experiments of either half.
        ask_hub: whether the hub is asked too.

    Raises:
        ConfigError: if the configuration is wrong, or there is no such experiment.
    """
    from steering_core.config.corrsteer_resolve import load_corrsteer
    from steering_core.config.resolve import resolve
    from steering_core.corrsteer.read_items import configured_task

    runs = load_corrsteer(raw)
    found, seen = {}, {}
    for name in names:
        if name in runs:
            experiment = runs[name]
            dataset = configured_task(experiment.task).source.dataset
        else:
            experiment = resolve(raw, name)
            dataset = experiment.task.dataset
        lines = BeforeAnyJob(experiment, dataset, _in_results).problems()
        if ask_hub:
            lines += hub_problems(experiment, dataset, _in_results, seen)
        if lines:
            found[name] = list(dict.fromkeys(lines))
    return found


def hub_problems(
    experiment: "Experiment", dataset: str, made: Callable[[str], bool], seen: dict[Any, list[str]]
) -> list[str]:
    """Return what the hub would refuse, a line for each problem; weights are not downloaded.

    Every repository of the experiment must be there and open to this login. If those of the model
    and its SAEs are, their configurations must fit each other and the settings. The judges must
    have the label that is configured.

    Args:
        experiment: of either half, with its merged settings.
        dataset: the dataset of its task.
        made: whether a rule makes a path. Such a path is not looked at.
        seen: the problems of repositories that were asked for before; it is extended.
    """
    from steering_core.hub.revisions import check_access

    lines: list[str] = []
    for repository in _repositories(experiment, dataset, made):
        if repository not in seen:
            seen[repository] = _lines_of(partial(check_access, *repository))
        lines += seen[repository]
    if not lines:
        lines += _lines_of(partial(_check_configurations, experiment, made))
    return list(dict.fromkeys(lines))


def _repositories(
    experiment: "Experiment", dataset: str, made: Callable[[str], bool]
) -> Iterator[tuple[str, str, str]]:
    """Yield id, revision and kind of every repository on the hub that an experiment needs."""
    from steering_core.config.prepared_models import is_gguf
    from steering_core.data.sources import is_file
    from steering_core.models.sae_source import sae_repository

    def on_hub(name: str) -> bool:
        return not (made(name) or is_path(name) or is_file(name) or Path(name).exists())

    model, task = experiment.model, experiment.task
    if on_hub(model.id) and not is_gguf(model.id):
        yield model.id, model.revision, "model"
    if model.sae.release is not None:
        layer = getattr(experiment.settings, "layer", 0)
        yield sae_repository(model.sae, layer if isinstance(layer, int) else 0), "main", "model"
    if on_hub(dataset):
        yield dataset, task.revision, "dataset"
    for judge in getattr(task, "judges", []):
        if judge.model is not None and on_hub(judge.model):
            yield judge.model, judge.revision, "model"


def _check_configurations(experiment: "Experiment", made: Callable[[str], bool]) -> None:
    """Compare the configurations of model, SAEs and judges, as the fetch stage does."""
    from steering_core.config.prepared_models import is_gguf
    from steering_core.models.fetch import describe, describe_judge
    from steering_core.models.language_model import load_shape
    from steering_core.training.texts import describe_training

    model, settings = experiment.model, experiment.settings
    here = [model.id, model.sae.path or ""]
    if any(map(made, here[:1])) or is_gguf(model.id):
        pass  # nothing of the model is on the hub
    elif model.sae.train is not None:
        if lacking := lacks_room(experiment, load_shape(model).context):
            raise ConfigError(lacking[0]).of(lacking)
        # The rules read trained SAEs from their path too.
        plain = Model(**model.model_dump(exclude={"sae": {"train"}}))
        describe_training(plain, model.sae.train, dtype="float32")
    elif not any(map(made, here)):
        steered = getattr(settings, "layer", "auto")
        describe(
            model,
            layers=settings.layers,
            steered_layer=steered if isinstance(steered, int) else None,
            max_tokens=settings.max_tokens,
            new_tokens=most_new_tokens(experiment),
            texts_are_continued=not isinstance(experiment.task, Task),
        )
        if LORA in getattr(settings, "methods", ()):
            check_adapter(settings, model.id, None if is_path(model.id) else model.revision)
    for judge in getattr(experiment.task, "judges", []):
        if judge.lexicon is None or not made(judge.lexicon):
            describe_judge(judge)


def _lines_of(check: Callable[[], object]) -> list[str]:
    """Return the problems that a check raises, each as one line."""
    try:
        check()
    except SteeringError as error:
        return [" ".join(line.split()) for line in error.problems or (str(error),)]
    return []


def _in_results(path: str) -> bool:
    """Whether a path is where the rules write."""
    return Path(path).parts[:1] == ("results",)


def _merged(files: Sequence[str]) -> dict[str, Any]:
    """Return configuration files merged as Snakemake merges them: mappings key by key."""
    import yaml

    def update(old: dict, new: Mapping) -> None:
        for key, value in new.items():
            if isinstance(value, Mapping) and isinstance(old.get(key), dict):
                update(old[key], value)
            else:
                old[key] = value

    whole: dict[str, Any] = {}
    for file in files:
        if not Path(file).is_file():
            raise ConfigError(f"there is no file {file}.")
        update(whole, yaml.safe_load(Path(file).read_text(encoding="utf-8")) or {})
    return whole
