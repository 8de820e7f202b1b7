"""From the raw configuration to the experiments that deliver ``pareto.csv``.

A setting is looked up in six layers, and the later one wins: the defaults of the schema, the
``settings`` of all experiments, those of the model, of the task, of the experiment, and the top
level of the configuration, which is where ``--config`` writes. CorrSteer's experiments combine
their layers in the same way (:mod:`steering_core.config.corrsteer_resolve`).
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel

from steering_core.config.corrsteer_schema import CorrSteerSettings
from steering_core.config.prepared_models import trained_layers, with_path
from steering_core.config.schema import (
    Config,
    Experiment,
    ExperimentEntry,
    ParetoExperiment,
    Settings,
)
from steering_core.config.validation import hint, validated
from steering_core.errors import ConfigError

T = TypeVar("T", bound=BaseModel)

#: The name of the last layer in messages.
TOP_LEVEL = "settings at top level"


class Sections(Protocol):
    """What both parts of the configuration have: settings, and models and tasks by name."""

    @property
    def settings(self) -> dict:
        """The settings of all experiments of this part."""

    @property
    def models(self) -> Mapping[str, Any]:
        """Models by name. Each has settings of its own."""

    @property
    def tasks(self) -> Mapping[str, Any]:
        """Tasks by name. Each has settings of its own."""


@dataclass(frozen=True)
class Layer:
    """Settings, and the key of the configuration under which they stand."""

    where: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class ByName:
    """A setting whose value is a dictionary. The layers merge it entry by entry.

    An entry set to null is left out. A layer can leave out only an entry of an earlier layer.

    Attributes:
        entry: the word for an entry in messages.
        default: the entries of the schema, as the configuration would give them.
        anywhere: names of the entries of all experiments. All experiments read the top level, so
            it may leave out an entry that only some of them have.

    """

    entry: str
    default: Mapping[str, Any]
    anywhere: frozenset[str] = field(default=frozenset())


def merge_layers(
    schema: type[T], layers: Iterable[Layer], named: Mapping[str, ByName] | None = None
) -> T:
    """Return the settings of all ``layers``, merged.

    Each layer is checked as it is added, so that an error names the layer that is wrong.

    Args:
        schema: the schema of the settings, with the defaults.
        layers: the later one wins.
        named: the settings that are merged entry by entry, by key.

    Raises:
        ConfigError: naming the layer and each key that is unknown or has a wrong value.

    """
    named = named or {}
    entries = {key: dict(of.default) for key, of in named.items()}
    seen = {key: set(of.default) for key, of in named.items()}
    merged: dict[str, Any] = {}
    result = schema()
    for layer in layers:
        merged |= layer.settings
        for key, of in named.items():
            own = layer.settings.get(key, {})
            if not isinstance(own, Mapping):
                continue  # the schema refuses it below
            seen[key] |= {name for name, value in own.items() if value is not None}
            known = seen[key] | (of.anywhere if layer.where == TOP_LEVEL else frozenset())
            _check_left_out(f"in {layer.where}: {key}", of, own, known)
            entries[key] |= own
            entries[key] = {k: v for k, v in entries[key].items() if v is not None}
            merged[key] = entries[key]
        result = validated(schema, merged, layer.where)
    return result


def _check_left_out(where: str, of: ByName, own: Mapping[str, Any], known: Iterable[str]) -> None:
    known = sorted(map(str, known))
    for name, value in own.items():
        if value is None and str(name) not in known:
            raise ConfigError(
                f"{where}.{name}: null leaves out the {of.entry} of that name, and there is none"
                f"{hint(str(name), known)}; there are {', '.join(known)}."
            )


def experiment_layers(
    sections: Sections,
    name: str,
    entry: ExperimentEntry,
    overrides: Mapping[str, Any],
    prefix: str = "",
) -> list[Layer]:
    """Return the layers of the experiment ``name``, without the defaults of the schema."""
    model, task = model_and_task(sections, f"{prefix}experiments.{name}", entry)
    return [
        Layer(f"{prefix}settings", sections.settings),
        Layer(f"{prefix}models.{entry.model}.settings", model.settings),
        Layer(f"{prefix}tasks.{entry.task}.settings", task.settings),
        Layer(f"{prefix}experiments.{name}.settings", entry.settings),
        Layer(TOP_LEVEL, overrides),
    ]


def model_and_task(sections: Sections, where: str, entry: ExperimentEntry) -> tuple[Any, Any]:
    """Return the model and the task of ``entry``, which stands at ``where``.

    Raises:
        ConfigError: if there is no such model or task.
    """
    for kind, key, known in (
        ("model", entry.model, sections.models),
        ("task", entry.task, sections.tasks),
    ):
        if key not in known:
            raise ConfigError(f"{where}.{kind}: there is no {kind} {key!r}{hint(key, known)}")
    return sections.models[entry.model], sections.tasks[entry.task]


def check_sections(
    schema: type[BaseModel],
    sections: Sections,
    prefix: str = "",
    named: Mapping[str, ByName] | None = None,
) -> None:
    """Check the settings of all models and tasks, also of those that no experiment uses."""
    first = Layer(f"{prefix}settings", sections.settings)
    merge_layers(schema, [first], named)
    for kind, of_kind in (("models", sections.models), ("tasks", sections.tasks)):
        for name, section in of_kind.items():
            own = Layer(f"{prefix}{kind}.{name}.settings", section.settings)
            merge_layers(schema, [first, own], named)


def load_config(raw: dict[str, Any]) -> tuple[Config, dict[str, Any]]:
    """Validate ``raw`` and return ``(config, overrides)``.

    ``overrides`` are the settings at top level. They win over every section.

    Raises:
        ConfigError: naming each unknown, misspelt or conflicting key.

    """
    of_corrsteer = CorrSteerSettings.model_fields
    overrides = {
        key: value
        for key, value in raw.items()
        # null is a value of some of CorrSteer's settings; no setting here takes it
        if key in Settings.model_fields and not (value is None and key in of_corrsteer)
    }
    rest = {k: value for k, value in raw.items() if k not in overrides and k not in of_corrsteer}
    config = validated(Config, rest, "config", also=Settings.model_fields)
    for name, entry in config.experiments.items():
        model_and_task(config, f"experiments.{name}", entry)
    check_sections(Settings, config)
    for name in config.experiments:
        _check_layer(experiment_of(config, {}, name), "")
    misfits = [error for _, error in _merged(config, overrides) if error is not None]
    # The top level need not fit an experiment that this run does not make.
    if misfits and len(misfits) == len(config.experiments):
        raise misfits[0]
    return config, overrides


def _merged(
    config: Config, overrides: dict[str, Any]
) -> Iterator[tuple[Settings, ConfigError | None]]:
    """Yield the settings of each experiment; where the top level does not fit, those without it."""
    for name in config.experiments:
        try:
            yield merged_settings(config, overrides, name), None
        except ConfigError as error:
            yield merged_settings(config, {}, name), error


def resolve(raw: dict[str, Any], name: str) -> ParetoExperiment:
    """Return the experiment ``name`` of ``raw`` with its merged settings.

    Raises:
        ConfigError: if there is no such experiment, or if anything in ``raw`` is wrong.

    """
    config, overrides = load_config(raw)
    if name not in config.experiments:
        raise ConfigError(
            f"there is no experiment {name!r}{hint(name, config.experiments)}; "
            f"known: {', '.join(sorted(config.experiments))}"
        )
    found = experiment_of(config, overrides, name)
    # The top level need not fit the experiments that this run does not make.
    _check_layer(found, ", and do not give another with --config")
    return found


def experiment_of(config: Config, overrides: dict[str, Any], name: str) -> ParetoExperiment:
    """Return the experiment ``name``; ``overrides`` are the settings at top level."""
    entry, settings = config.experiments[name], merged_settings(config, overrides, name)
    model, task = with_path(entry.model, config.models[entry.model]), config.tasks[entry.task]
    layers = trained_layers(f"experiments.{name}", model, settings.layers, settings.layer)
    settings = settings.model_copy(update={"layers": layers})
    return Experiment(name, entry.model, entry.task, model, task, settings)


def merged_settings(config: Config, overrides: dict[str, Any], name: str) -> Settings:
    """Return the merged settings of the experiment ``name``, without what its model adds."""
    entry = config.experiments[name]
    return merge_layers(Settings, experiment_layers(config, name, entry, overrides))


def _check_layer(experiment: ParetoExperiment, more: str) -> None:
    """Refuse a model with the SAE of one layer if the settings do not name that layer."""
    settings, sae = experiment.settings, experiment.model.sae
    if sae.by_layer:
        return
    one = [settings.layer] if settings.layers == "all" else settings.layers
    if len(one) != 1 or one[0] == "auto" or settings.layer not in ("auto", one[0]):
        raise ConfigError(
            f"models.{experiment.model_name}.sae: {sae.template!r} has no {{layer}}, so it is the "
            f"SAE of one layer: set `layer` in models.{experiment.model_name}.settings to that "
            f"one{more}, or put {{layer}} where its number goes."
        )


def concept_sets(raw: dict[str, Any]) -> dict[str, list[str]]:
    """Return the experiments of each concept set that tasks name, in the order of the file.

    Raises:
        ConfigError: if a task of a set has no judge behind a server, whose ratings its table needs.
    """
    config, _ = load_config(raw)
    found: dict[str, list[str]] = {}
    for name, entry in config.experiments.items():
        task = config.tasks[entry.task]
        if task.concept_set is None:
            continue
        if all(judge.api is None for judge in task.judges):
            raise ConfigError(
                f"tasks.{entry.task}.concept_set: the table over {task.concept_set} needs ratings: "
                "add a judge {api: …} to classifier."
            )
        found.setdefault(task.concept_set, []).append(name)
    return found


def plan_names(raw: dict[str, Any]) -> list[str]:
    """Return the names of the CorrSteer plans that any experiment with pareto.csv evaluates."""
    return _names(raw, "plans")


def plan_sources(raw: dict[str, Any]) -> set[tuple[str, str, int]]:
    """Return run, arm and seed of all CorrSteer plans that experiments with pareto.csv evaluate."""
    if not plan_names(raw):
        return set()
    config, overrides = load_config(raw)
    plans = (plan for found, _ in _merged(config, overrides) for plan in found.plans.values())
    return {(plan.experiment, plan.arm, plan.seed) for plan in plans}


def program_names(raw: dict[str, Any]) -> list[str]:
    """Return the names of the programs that any experiment with pareto.csv declares."""
    return _names(raw, "programs")


def gated_names(raw: dict[str, Any]) -> list[str]:
    """Return the names of the gated methods that any experiment with pareto.csv declares."""
    return _names(raw, "gated")


def guarding_concept_names(raw: dict[str, Any]) -> list[str]:
    """Return the names, without folder and ending, of all concept files that are guards."""
    config, overrides = load_config(raw)
    found = (settings.programs.values() for settings, _ in _merged(config, overrides))
    files = {file for programs in found for one in programs for file in one.guarding_concepts}
    return sorted({Path(file).stem for file in files})


def _names(raw: dict[str, Any], key: str) -> list[str]:
    config, overrides = load_config(raw)
    return sorted(names_in(config, key) | set(overrides.get(key, {})))


def names_in(config: Config, key: str) -> set[str]:
    """Return the names that the settings of any section give under ``key``."""
    sections = (config.models, config.tasks, config.experiments)
    own = [one.settings for of_kind in sections for one in of_kind.values()]
    return {name for layer in [config.settings, *own] for name in layer.get(key, {})}
