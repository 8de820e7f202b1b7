"""From the raw configuration to one experiment with every setting in its place."""

import difflib
import re
from typing import Any

from pydantic import BaseModel, ValidationError

from steering_core.config.corrsteer import CorrSteerSettings
from steering_core.config.experiment import Experiment
from steering_core.config.schema import Config
from steering_core.config.settings import Settings
from steering_core.errors import ConfigError


def load_config(raw: dict[str, Any]) -> tuple[Config, dict[str, Any]]:
    """Validate ``raw`` and return ``(config, overrides)``.

    ``overrides`` are the settings given at top level, which is where ``--config`` puts them; they
    win over every section.

    Raises:
        ConfigError: naming each unknown, misspelt or misfitting key.

    """
    elsewhere = CorrSteerSettings.model_fields  # read by config/corrsteer_resolve.py
    overrides = {
        key: value
        for key, value in raw.items()
        # null is a value of some settings there, and of none here
        if key in Settings.model_fields and not (value is None and key in elsewhere)
    }
    rest = {k: value for k, value in raw.items() if k not in overrides and k not in elsewhere}
    config = _validated(Config, rest, "config", also=Settings)
    for name, entry in config.experiments.items():
        for kind, key, known in (
            ("model", entry.model, config.models),
            ("task", entry.task, config.tasks),
        ):
            if key not in known:
                raise ConfigError(
                    f"experiments.{name}.{kind}: there is no {kind} {key!r}{_hint(key, known)}"
                )
    _validated(Settings, config.settings, "settings")
    for kind, sections in (("models", config.models), ("tasks", config.tasks)):
        for name, section in sections.items():  # also those that no experiment uses
            _validated(Settings, config.settings | section.settings, f"{kind}.{name}.settings")
    for name in config.experiments:
        _check_layer(_resolve(config, {}, name), "")
        _resolve(config, overrides, name)
    return config, overrides


def resolve(raw: dict[str, Any], name: str) -> Experiment:
    """Return experiment ``name`` of ``raw``: defaults < model < task < experiment < top level.

    Raises:
        ConfigError: if the experiment is unknown or anything in ``raw`` is wrong.

    """
    config, overrides = load_config(raw)
    if name not in config.experiments:
        raise ConfigError(
            f"there is no experiment {name!r}{_hint(name, config.experiments)}; "
            f"known: {', '.join(sorted(config.experiments))}"
        )
    found = _resolve(config, overrides, name)
    # What is given for all experiments need not fit those that are not asked for.
    _check_layer(found, ", and do not give another with --config")
    return found


def _check_layer(experiment: Experiment, more: str) -> None:
    """Refuse the SAE of one layer where the settings do not name that layer."""
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


def _resolve(config: Config, overrides: dict[str, Any], name: str) -> Experiment:
    entry = config.experiments[name]
    model, task = config.models[entry.model], config.tasks[entry.task]
    merged: dict[str, Any] = {}
    for where, layer in (
        ("settings", config.settings),
        (f"models.{entry.model}.settings", model.settings),
        (f"tasks.{entry.task}.settings", task.settings),
        (f"experiments.{name}.settings", entry.settings),
        ("settings at top level", overrides),
    ):
        merged |= layer
        _validated(Settings, merged, where)
    settings = _validated(Settings, merged, f"experiments.{name}")
    return Experiment(name, entry.model, entry.task, model, task, settings)


def _validated(
    schema: type[BaseModel], value: Any, where: str, also: type[BaseModel] | None = None
) -> Any:
    try:
        return schema.model_validate(value)
    except ValidationError as error:
        found: dict[str, list[str]] = {}
        for problem in error.errors():
            path = _path(problem["loc"], value)
            if problem["type"] == "extra_forbidden":
                key = str(problem["loc"][-1])
                known = _keys_at(schema, problem["loc"][:-1])
                if also is not None and len(problem["loc"]) == 1:
                    known = [*known, *also.model_fields]
                message = f"unknown key{_hint(key, known)}"
            else:
                message = problem["msg"].removeprefix("Value error, ")
                if isinstance(problem["input"], str | int | float):
                    message += f" (got {problem['input']!r})"
                elif problem["input"] is None and problem["type"] != "missing":
                    message += " (got null)"
                if problem["type"] == "literal_error":
                    message += _hint(str(problem["input"]), _quoted(problem["ctx"]["expected"]))
            found.setdefault(path, []).append(message)
        # A key that may be this or that has a problem for each.
        lines = [f"{path}: {', or '.join(m)}".removeprefix(": ") for path, m in found.items()]
        raise ConfigError(f"in {where}: " + "; ".join(lines)) from error


def _path(loc: tuple[int | str, ...], value: Any) -> str:
    """Return where a problem is, without what pydantic calls the kinds that a value may be of."""
    found = []
    for part in loc:
        if not isinstance(value, dict) and not (isinstance(value, list) and isinstance(part, int)):
            continue
        found.append(str(part))
        value = value[part] if isinstance(value, list) else value.get(part)
    return ".".join(found)


def _quoted(expected: str) -> list[str]:
    """Return the names in pydantic's list of what a value may be."""
    return re.findall(r"'([^']*)'", expected)


def _keys_at(schema: type[BaseModel], location: tuple) -> list[str]:
    """Known keys of the section at ``location``, following models through dictionaries."""
    current: Any = schema
    for part in location:
        if isinstance(current, type) and issubclass(current, BaseModel):
            field = current.model_fields.get(str(part))
            current = field.annotation if field else None
        else:
            arguments = getattr(current, "__args__", ())
            current = arguments[-1] if arguments else None
        options = [a for a in getattr(current, "__args__", ()) if a is not type(None)]
        if len(options) == 1:
            current = options[0]
    if isinstance(current, type) and issubclass(current, BaseModel):
        return list(current.model_fields)
    return []


def _hint(key: str, known: Any) -> str:
    close = difflib.get_close_matches(key, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
