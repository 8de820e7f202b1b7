"""From the raw configuration to the experiments that deliver ``pareto.csv``.

:mod:`steering_core.config.corrsteer_resolve` does the same for CorrSteer.
"""

from pathlib import Path
from typing import Any

from steering_core.config.corrsteer_schema import CorrSteerSettings
from steering_core.config.layers import (
    check_sections,
    experiment_layers,
    merge_layers,
    model_and_task,
)
from steering_core.config.schema import Config, Experiment, ParetoExperiment, Settings
from steering_core.config.trained import trained_layers, with_path
from steering_core.config.validation import hint, validated
from steering_core.errors import ConfigError


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
        # The top level need not fit an experiment that this run does not make.
        merged_settings(config, overrides, name)
    return config, overrides


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


def program_names(raw: dict[str, Any]) -> list[str]:
    """Return the names of the programs that any experiment with pareto.csv declares."""
    return _names(raw, "programs")


def gated_names(raw: dict[str, Any]) -> list[str]:
    """Return the names of the gated methods that any experiment with pareto.csv declares."""
    return _names(raw, "gated")


def guarding_concept_names(raw: dict[str, Any]) -> list[str]:
    """Return the names, without folder and ending, of all concept files that are guards."""
    config, overrides = load_config(raw)
    found = (
        merged_settings(config, overrides, name).programs.values() for name in config.experiments
    )
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
