"""How the layers of settings combine.

A setting is looked up in six layers, and the later one wins: the defaults of the schema, the
``settings`` of all experiments, those of the model, of the task, of the experiment, and the top
level of the configuration, which is where ``--config`` writes. Both kinds of experiments combine
their layers in this way: those of ``pareto.csv`` and those of CorrSteer.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel

from steering_core.config.schema import ExperimentEntry
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
