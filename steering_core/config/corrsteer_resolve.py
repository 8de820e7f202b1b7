"""From the raw configuration to one CorrSteer experiment."""

from dataclasses import dataclass, replace
from typing import Any

from steering_core.config.corrsteer import (
    DEFAULT_ARMS,
    Arm,
    Bridge,
    CorrSteerSection,
    CorrSteerSettings,
    FineTuning,
)
from steering_core.config.corrsteer_task import CorrSteerTask
from steering_core.config.layers import (
    ByName,
    check_sections,
    experiment_layers,
    merge_layers,
    names_given,
)
from steering_core.config.model import Model
from steering_core.config.schema import ExperimentEntry
from steering_core.config.validation import hint, validated
from steering_core.errors import ConfigError

#: Of the keys of the section, in messages.
_PREFIX = "corrsteer."


@dataclass(frozen=True)
class CorrSteerExperiment:
    """A resolved CorrSteer experiment."""

    name: str
    model_name: str
    task_name: str
    model: Model
    task: CorrSteerTask
    settings: CorrSteerSettings


def load_corrsteer(raw: dict[str, Any]) -> dict[str, CorrSteerExperiment]:
    """Return every CorrSteer experiment of ``raw`` by name.

    Settings combine as everywhere: defaults < settings < model < task < experiment < top level.
    Arms are merged by name: a section that defines one arm keeps the others; an arm set to null
    is left out.

    Raises:
        ConfigError: naming each unknown, misspelt or misfitting key.
    """
    section = load_section(raw)
    overrides = {k: v for k, v in raw.items() if k in CorrSteerSettings.model_fields}
    check_sections(CorrSteerSettings, section, _PREFIX, _named(section, overrides))
    _check_tables_model(section)
    entries = {
        f"{model}_{task}": ExperimentEntry(model=model, task=task)
        for model in section.models
        for task in section.tasks
        if section.models[model].paired and section.tasks[task].paired
    }
    for name in sorted(set(entries) & set(section.experiments)):
        pair, entry = entries[name], section.experiments[name]
        if (entry.model, entry.task) != (pair.model, pair.task):
            raise ConfigError(
                f"corrsteer.experiments.{name}: the name is taken by the model {pair.model} "
                f"on the task {pair.task}."
            )
    found = {}
    for name, entry in {**entries, **section.experiments}.items():
        if name in raw.get("experiments", {}):
            raise ConfigError(f"corrsteer: {name} is also the name of an experiment.")
        found[name] = _resolve(section, overrides, name, entry)
    found |= _ablations(section, overrides, found)
    for experiment in found.values():
        _check_bridge(experiment)
        for arm_name, arm in experiment.settings.arms.items():
            where = f"corrsteer {experiment.name}: arms.{arm_name}.features_from"
            _check_transfer(where, arm, found)
    return found


def _check_tables_model(section: CorrSteerSection) -> None:
    wanted = "tables_model" in section.model_fields_set or section.ablations
    if wanted and section.tables_model not in section.models:
        raise ConfigError(
            f"corrsteer.tables_model: there is no model {section.tables_model!r}"
            f"{hint(section.tables_model, section.models)}"
        )


def find_corrsteer(raw: dict[str, Any], name: str) -> CorrSteerExperiment:
    """Return the CorrSteer experiment ``name``.

    Raises:
        ConfigError: if there is none, with those there are.
    """
    found = load_corrsteer(raw)
    if name not in found:
        raise ConfigError(
            f"there is no CorrSteer experiment {name!r}{hint(name, found)}; known: "
            f"{', '.join(sorted(found))}"
        )
    return found[name]


def _ablations(
    section: CorrSteerSection, overrides: dict[str, Any], known: dict[str, CorrSteerExperiment]
) -> dict[str, CorrSteerExperiment]:
    """Experiments with the settings of the pair they belong to and arms of their own.

    Neither fine-tuning nor the bridge is done again: they stand in the pair's own table.
    """
    found = {}
    for ablation, entry in section.ablations.items():
        arms = {key: _of_tables_model(arm, section.tables_model) for key, arm in entry.arms.items()}
        alone = {"arms": arms, "bridge": Bridge(methods=[]), "fine_tuning": FineTuning()}
        for task in entry.tasks:
            if task not in section.tasks:
                raise ConfigError(
                    f"corrsteer.ablations.{ablation}.tasks: there is no task {task!r}"
                    f"{hint(task, section.tasks)}"
                )
            pair = f"{section.tables_model}_{task}"
            name = f"{pair}_{ablation}"
            if name in known or name in found:
                raise ConfigError(
                    f"corrsteer.ablations.{ablation}: {name} is also the name of an experiment."
                )
            own = section.experiments.get(pair)
            made = ExperimentEntry(model=section.tables_model, task=task)
            if own is not None and (own.model, own.task) == (made.model, made.task):
                made = own
            base = _resolve(section, overrides, name, made)
            settings = base.settings.model_copy(update=alone)
            found[name] = replace(base, settings=settings)
    return found


def _of_tables_model(arm: Arm, model: str) -> Arm:
    source = arm.features_from
    if source is None:
        return arm
    name = source.experiment.replace("{tables_model}", model)
    return arm.model_copy(update={"features_from": source.model_copy(update={"experiment": name})})


def _check_transfer(where: str, arm: Arm, found: dict[str, CorrSteerExperiment]) -> None:
    source = arm.features_from
    if source is None:
        return
    if source.experiment not in found:
        raise ConfigError(
            f"{where}: there is no CorrSteer experiment {source.experiment!r}"
            f"{hint(source.experiment, found)}"
        )
    arms = found[source.experiment].settings.arms
    if source.arm not in arms or arms[source.arm].features_from is not None:
        raise ConfigError(
            f"{where}: {source.experiment} selects no features for an arm {source.arm!r}"
            f"{hint(source.arm, (name for name in arms if arms[name].features_from is None))}"
        )


def _check_bridge(experiment: CorrSteerExperiment) -> None:
    bridge, arms = experiment.settings.bridge, experiment.settings.arms
    if not bridge.methods:
        return
    if bridge.arm not in arms:
        raise ConfigError(
            f"corrsteer {experiment.name}: bridge.arm: there is no arm {bridge.arm!r}"
            f"{hint(bridge.arm, arms)}; set bridge.methods to [] to do without the bridge."
        )
    arm = arms[bridge.arm]
    if arm.space != "features" or arm.features_from is not None:
        raise ConfigError(
            f"corrsteer {experiment.name}: bridge.arm: {bridge.arm!r} selects no SAE features here."
        )


def load_section(raw: dict[str, Any]) -> CorrSteerSection:
    """Validate the section alone."""
    return validated(CorrSteerSection, raw.get("corrsteer", {}), "corrsteer")


def _resolve(
    section: CorrSteerSection, overrides: dict[str, Any], name: str, entry: ExperimentEntry
) -> CorrSteerExperiment:
    layers = experiment_layers(section, name, entry, overrides, _PREFIX)
    settings = merge_layers(CorrSteerSettings, layers, _named(section, overrides))
    model, task = section.models[entry.model], section.tasks[entry.task]
    return CorrSteerExperiment(name, entry.model, entry.task, model, task, settings)


def _named(section: CorrSteerSection, overrides: dict[str, Any]) -> dict[str, ByName]:
    """Return how arms combine, and the names of all that any experiment may have."""
    sections = (section.models, section.tasks, section.experiments)
    own = [one.settings for of_kind in sections for one in of_kind.values()]
    anywhere = names_given("arms", [{"arms": DEFAULT_ARMS}, section.settings, *own, overrides])
    return {"arms": ByName("arm", DEFAULT_ARMS, anywhere)}
