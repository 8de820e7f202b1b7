"""From the raw configuration to CorrSteer's experiments, and to the tasks answered for others."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from steering_core.config.corrsteer_schema import (
    DEFAULT_ARMS,
    Arm,
    CorrSteerExperiment,
    CorrSteerSection,
    CorrSteerSettings,
    FineTuning,
    SparseMethods,
)
from steering_core.config.model import Model
from steering_core.config.prepared_models import trained_layers, trained_models, with_path
from steering_core.config.references import (
    check_methods_of_experiments,
    check_plans,
    check_transfer,
)
from steering_core.config.resolve import (
    ByName,
    Layer,
    check_sections,
    experiment_layers,
    experiment_of,
    load_config,
    merge_layers,
    merged_settings,
    names_in,
)
from steering_core.config.schema import Experiment, ExperimentEntry, ParetoExperiment
from steering_core.config.validation import hint, validated
from steering_core.errors import ConfigError

#: The word for neutral text among the tasks of ``elsewhere``.
NEUTRAL_TEXT = "text"

#: In front of the keys of the section ``corrsteer`` in messages.
_PREFIX = "corrsteer."


def load_corrsteer(raw: dict[str, Any]) -> dict[str, CorrSteerExperiment]:
    """Return every CorrSteer experiment of ``raw``, by name.

    Arms are merged by name: a layer that defines one arm keeps the others. A layer leaves out an
    arm by setting it to null.

    Raises:
        ConfigError: naming each unknown, misspelt or conflicting key.
    """
    section = load_section(raw)
    overrides = {k: v for k, v in raw.items() if k in CorrSteerSettings.model_fields}
    check_sections(CorrSteerSettings, section, _PREFIX, _arms_by_name(section, overrides))
    _check_tables_model(section)
    found = {}
    others = {name.lower() for name in raw.get("experiments", {})}
    for name, entry in _entries(section).items():
        if name.lower() in others:
            raise ConfigError(f"corrsteer: {name} also stands under `experiments`: rename one.")
        found[name] = _resolve_corrsteer(section, overrides, name, entry)
    found |= _ablations(section, overrides, found)
    for experiment in found.values():
        _check_sparse_methods(experiment)
        for arm_name, arm in experiment.settings.arms.items():
            where = f"corrsteer {experiment.name}: arms.{arm_name}.features_from"
            check_transfer(where, arm, found)
    check_methods_of_experiments(raw, found)
    # The top level need not fit the experiments that this run does not make.
    config, _ = load_config(raw)
    if names_in(config, "plans"):
        for name in config.experiments:
            check_plans(experiment_of(config, {}, name), found)
    return found


def resolve_corrsteer(raw: dict[str, Any], name: str) -> CorrSteerExperiment:
    """Return the CorrSteer experiment ``name``.

    Raises:
        ConfigError: if there is none, naming those there are.
    """
    found = load_corrsteer(raw)
    if name not in found:
        raise ConfigError(
            f"there is no CorrSteer experiment {name!r}{hint(name, found)}; known: "
            f"{', '.join(sorted(found))}"
        )
    return found[name]


def load_section(raw: dict[str, Any]) -> CorrSteerSection:
    """Validate the section ``corrsteer`` of ``raw`` alone.

    A model without ``id`` is that of the same name under ``models``, with settings of its own. What
    it says itself comes first.
    """
    section, above = raw.get("corrsteer", {}), raw.get("models", {})
    if isinstance(section, Mapping) and isinstance(section.get("models"), Mapping):
        models = {name: _with_twin(one, name, above) for name, one in section["models"].items()}
        section = {**section, "models": models}
    return validated(CorrSteerSection, section, "corrsteer")


def _with_twin(model: Any, name: str, above: Any) -> Any:
    twin = above.get(name) if isinstance(above, Mapping) else None
    if not isinstance(model, Mapping) or "id" in model or not isinstance(twin, Mapping):
        return model
    return {**{key: value for key, value in twin.items() if key != "settings"}, **model}


def _entries(section: CorrSteerSection) -> dict[str, ExperimentEntry]:
    """Return all pairs of a paired model and a paired task, and the experiments on their own."""
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
                f"on the task {pair.task}: choose another name."
            )
    return {**entries, **section.experiments}


def _resolve_corrsteer(
    section: CorrSteerSection, overrides: dict[str, Any], name: str, entry: ExperimentEntry
) -> CorrSteerExperiment:
    layers = experiment_layers(section, name, entry, overrides, _PREFIX)
    settings = merge_layers(CorrSteerSettings, layers, _arms_by_name(section, overrides))
    model = with_path(entry.model, section.models[entry.model])
    task = section.tasks[entry.task]
    if "layers" not in overrides:  # those of the top level may be of another experiment
        # CorrSteer begins at layer 1, as published.
        layers = trained_layers(f"corrsteer {name}", model, settings.layers, first=1)
        settings = settings.model_copy(update={"layers": layers})
    return Experiment(name, entry.model, entry.task, model, task, settings)


def _arms_by_name(section: CorrSteerSection, overrides: dict[str, Any]) -> dict[str, ByName]:
    """Say that arms are merged by name, and which arms any experiment has."""
    sections = (section.models, section.tasks, section.experiments)
    own = [one.settings for of_kind in sections for one in of_kind.values()]
    layers = [section.settings, *own, overrides]
    return {"arms": ByName("arm", DEFAULT_ARMS, frozenset(DEFAULT_ARMS) | _defined(layers))}


def _defined(layers: Sequence[Mapping[str, Any]]) -> frozenset[str]:
    """Return the names of the arms that any of ``layers`` defines."""
    return frozenset(
        name
        for layer in layers
        if isinstance(arms := layer.get("arms"), Mapping)
        for name, value in arms.items()
        if value is not None
    )


def _ablations(
    section: CorrSteerSection, overrides: dict[str, Any], known: dict[str, CorrSteerExperiment]
) -> dict[str, CorrSteerExperiment]:
    """Return the experiments of the ablations.

    Each has the settings of the pair that it belongs to, and its own arms. Fine-tuning and the
    methods of optimal sparse steering are left out, since the table of the pair has them.
    """
    found = {}
    for ablation, entry in section.ablations.items():
        arms = {key: _of_tables_model(arm, section.tables_model) for key, arm in entry.arms.items()}
        alone = {
            "arms": arms,
            "sparse_methods": SparseMethods(methods=[]),
            "fine_tuning": FineTuning(),
        }
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
                    f"corrsteer.ablations.{ablation}: {name} is also the name of an experiment: "
                    "rename one of the two."
                )
            own = section.experiments.get(pair)
            made = ExperimentEntry(model=section.tables_model, task=task)
            if own is not None and (own.model, own.task) == (made.model, made.task):
                made = own
            base = _resolve_corrsteer(section, overrides, name, made)
            found[name] = replace(base, settings=base.settings.model_copy(update=alone))
    return found


def _of_tables_model(arm: Arm, model: str) -> Arm:
    source = arm.features_from
    if source is None:
        return arm
    name = source.experiment.replace("{tables_model}", model)
    return arm.model_copy(update={"features_from": source.model_copy(update={"experiment": name})})


def _check_tables_model(section: CorrSteerSection) -> None:
    wanted = "tables_model" in section.model_fields_set or section.ablations
    if wanted and section.tables_model not in section.models:
        raise ConfigError(
            f"corrsteer.tables_model: there is no model {section.tables_model!r}"
            f"{hint(section.tables_model, section.models)}"
        )


def _check_sparse_methods(experiment: CorrSteerExperiment) -> None:
    """Refuse a ``sparse_methods.arm`` that selects no SAE features in this experiment."""
    methods, arms = experiment.settings.sparse_methods, experiment.settings.arms
    where = f"corrsteer {experiment.name}: sparse_methods.arm"
    if not methods.names:
        return
    if methods.arm not in arms:
        raise ConfigError(
            f"{where}: there is no arm {methods.arm!r}"
            f"{hint(methods.arm, arms)}; {_run_none(methods)}."
        )
    arm = arms[methods.arm]
    if arm.space != "features" or not arm.selects:
        raise ConfigError(
            f"{where}: {methods.arm!r} selects no SAE features in this experiment: name an arm "
            f"that does, or {_run_none(methods)}."
        )


def _run_none(methods: SparseMethods) -> str:
    programs = " and leave sparse_methods.programs out" if methods.programs else ""
    return f"set sparse_methods.methods to []{programs} to run none"


def elsewhere_runs(raw: dict[str, Any]) -> dict[str, CorrSteerExperiment]:
    """Return the CorrSteer tasks that experiments with pareto.csv answer to see the cost elsewhere.

    Each is an experiment without arms, ``{experiment}/elsewhere/{task}``, on the model of its
    experiment. Its settings are those of ``corrsteer``, of the CorrSteer model of the same name if
    there is one, and of the task.

    Raises:
        ConfigError: naming a task that does not exist.
    """
    config, overrides = load_config(raw)
    section = load_section(raw)
    found = {}
    for name in config.experiments:
        entry, settings = config.experiments[name], merged_settings(config, overrides, name)
        model = with_path(entry.model, config.models[entry.model])
        # Check no more: the top level need not fit experiments that this run does not make.
        experiment = Experiment(
            name, entry.model, entry.task, model, config.tasks[entry.task], settings
        )
        for task in settings.elsewhere:
            if task != NEUTRAL_TEXT:
                run = _elsewhere_run(section, experiment, task)
                found[run.name] = run
    return found


def _elsewhere_run(
    section: CorrSteerSection, experiment: ParetoExperiment, task: str
) -> CorrSteerExperiment:
    if task not in section.tasks:
        raise ConfigError(
            f"experiments.{experiment.name}: elsewhere: there is no CorrSteer task {task!r}"
            f"{hint(task, [NEUTRAL_TEXT, *section.tasks])}; there are {NEUTRAL_TEXT}, "
            f"{', '.join(section.tasks)}."
        )
    entry, model, own = section.tasks[task], experiment.model_name, experiment.settings
    twin = section.models.get(model)
    lent = twin.settings if twin is not None and twin.id == experiment.model.id else {}
    layers = [
        Layer(f"{_PREFIX}settings", section.settings),
        Layer(f"{_PREFIX}models.{model}.settings", lent),
        Layer(f"{_PREFIX}tasks.{task}.settings", entry.settings),
    ]
    settings = merge_layers(CorrSteerSettings, layers, _arms_by_name(section, {}))
    read = [own.layer] if isinstance(own.layer, int) else own.layers
    if read == "all" and experiment.model.sae.train is not None:
        read = experiment.model.sae.train.layers
    settings = settings.model_copy(
        update={
            "arms": {},
            "sparse_methods": SparseMethods(methods=[]),
            "fine_tuning": FineTuning(),
            "seeds": [own.seed],
            "layers": read,
            "test_rows": own.elsewhere_rows,
            "long_prompts": "drop",
            "device": own.device,
        }
    )
    name = f"{experiment.name}/elsewhere/{task}"
    return Experiment(name, model, task, experiment.model, entry, settings)


def load_trained(raw: dict[str, Any]) -> dict[str, Model]:
    """Return the models of both parts of ``raw`` whose SAEs the rules train, by name.

    Raises:
        ConfigError: as :func:`steering_core.config.prepared_models.trained_models`.
    """
    return trained_models(load_config(raw)[0].models, load_section(raw).models)
