"""How the settings of an experiment combine: five layers, of which the later wins."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel

from steering_core.config.schema import ExperimentEntry
from steering_core.config.validation import hint, validated
from steering_core.errors import ConfigError

T = TypeVar("T", bound=BaseModel)

#: What the settings given at top level, or with ``--config``, are called in a message.
TOP_LEVEL = "settings at top level"


class Sections(Protocol):
    """What the two parts of the configuration that define experiments share."""

    @property
    def settings(self) -> dict:
        """Of all its experiments."""

    @property
    def models(self) -> Mapping[str, Any]:
        """By name, each with settings of its own."""

    @property
    def tasks(self) -> Mapping[str, Any]:
        """Likewise."""


@dataclass(frozen=True)
class Layer:
    """Settings and the place where they stand."""

    where: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class ByName:
    """A setting whose entries have names, and which layers combine entry by entry.

    An entry set to null is left out. One layer can leave out only what an earlier one has.

    Attributes:
        entry: what an entry is called in a message.
        default: the entries of the first layer, as the configuration would give them.
        anywhere: names that some experiment has. The top level is read by all experiments, so it
            may leave out an entry that not all of them have.

    """

    entry: str
    default: Mapping[str, Any]
    anywhere: frozenset[str] = field(default=frozenset())


def find_pair(sections: Sections, where: str, entry: ExperimentEntry) -> tuple[Any, Any]:
    """Return the model and the task that ``entry``, which stands at ``where``, names.

    Raises:
        ConfigError: if there is no such model or task, with the nearest one.

    """
    for kind, key, known in (
        ("model", entry.model, sections.models),
        ("task", entry.task, sections.tasks),
    ):
        if key not in known:
            raise ConfigError(f"{where}.{kind}: there is no {kind} {key!r}{hint(key, known)}")
    return sections.models[entry.model], sections.tasks[entry.task]


def experiment_layers(
    sections: Sections,
    name: str,
    entry: ExperimentEntry,
    overrides: Mapping[str, Any],
    prefix: str = "",
) -> list[Layer]:
    """Return the layers of an experiment: settings < model < task < experiment < top level.

    Args:
        sections: the part of the configuration that defines the experiment.
        name: of the experiment.
        entry: its model, task and own settings.
        overrides: the settings at top level.
        prefix: of the keys of ``sections`` in the configuration, with its dot.

    Raises:
        ConfigError: as :func:`find_pair`.

    """
    model, task = find_pair(sections, f"{prefix}experiments.{name}", entry)
    return [
        Layer(f"{prefix}settings", sections.settings),
        Layer(f"{prefix}models.{entry.model}.settings", model.settings),
        Layer(f"{prefix}tasks.{entry.task}.settings", task.settings),
        Layer(f"{prefix}experiments.{name}.settings", entry.settings),
        Layer(TOP_LEVEL, overrides),
    ]


def merge_layers(
    schema: type[T], layers: Iterable[Layer], named: Mapping[str, ByName] | None = None
) -> T:
    """Return the settings of ``layers`` on top of each other; the defaults are the schema's.

    Each layer is checked as it is added, so that a message names the one that is wrong.

    Args:
        schema: of the settings.
        layers: the first has the least weight.
        named: settings that are combined entry by entry, by their key.

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
            given = layer.settings.get(key, {})
            if not isinstance(given, Mapping):
                continue  # refused below
            seen[key] |= {name for name, value in given.items() if value is not None}
            known = seen[key] | (of.anywhere if layer.where == TOP_LEVEL else frozenset())
            _check_left_out(f"in {layer.where}: {key}", of, given, known)
            entries[key] |= given
            entries[key] = {k: v for k, v in entries[key].items() if v is not None}
            merged[key] = entries[key]
        result = validated(schema, merged, layer.where)
    return result


def check_sections(
    schema: type[BaseModel],
    sections: Sections,
    prefix: str = "",
    named: Mapping[str, ByName] | None = None,
) -> None:
    """Check the settings of all models and tasks, also of those that no experiment uses.

    Raises:
        ConfigError: as :func:`merge_layers`.

    """
    first = Layer(f"{prefix}settings", sections.settings)
    merge_layers(schema, [first], named)
    for kind, of_kind in (("models", sections.models), ("tasks", sections.tasks)):
        for name, section in of_kind.items():
            own = Layer(f"{prefix}{kind}.{name}.settings", section.settings)
            merge_layers(schema, [first, own], named)


def names_given(key: str, layers: Sequence[Mapping[str, Any]]) -> frozenset[str]:
    """Return the names of the entries that any of ``layers`` defines under ``key``."""
    given = [layer.get(key) for layer in layers]
    return frozenset(
        name
        for entries in given
        if isinstance(entries, Mapping)
        for name, value in entries.items()
        if value is not None
    )


def _check_left_out(where: str, of: ByName, given: Mapping[str, Any], known: Iterable[str]) -> None:
    known = sorted(map(str, known))
    for name, value in given.items():
        if value is None and str(name) not in known:
            raise ConfigError(
                f"{where}.{name}: null leaves out the {of.entry} of that name, and there is none"
                f"{hint(str(name), known)}; there are {', '.join(known)}."
            )
