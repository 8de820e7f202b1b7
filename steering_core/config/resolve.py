"""From the raw configuration to one experiment with every setting in its place."""

from typing import Any

from steering_core.config.corrsteer import CorrSteerSettings
from steering_core.config.experiment import Experiment
from steering_core.config.layers import (
    check_sections,
    experiment_layers,
    find_pair,
    merge_layers,
)
from steering_core.config.schema import Config
from steering_core.config.settings import Settings
from steering_core.config.validation import hint, validated
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
    config = validated(Config, rest, "config", also=Settings.model_fields)
    for name, entry in config.experiments.items():
        find_pair(config, f"experiments.{name}", entry)
    check_sections(Settings, config)
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
            f"there is no experiment {name!r}{hint(name, config.experiments)}; "
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
    layers = experiment_layers(config, name, entry, overrides)
    settings = merge_layers(Settings, layers)
    return Experiment(name, entry.model, entry.task, model, task, settings)
