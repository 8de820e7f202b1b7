"""From the raw configuration to experiments: how the layers of settings combine.

A setting is looked up in six layers, and the later one wins: the defaults of the schema, the
``settings`` of all experiments, those of the model, of the task, of the experiment, and the top
level of the configuration, which is where ``--config`` writes. Both kinds of experiments combine
their layers in this way: those of ``pareto.csv`` and those of CorrSteer.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel

from steering_core.config.corrsteer_schema import (
    DEFAULT_ARMS,
    Arm,
    CorrSteerExperiment,
    CorrSteerSection,
    CorrSteerSettings,
    FineTuning,
    MethodSource,
    SparseMethods,
)
from steering_core.config.methods import strength_grid
from steering_core.config.model import Model
from steering_core.config.schema import (
    Config,
    Experiment,
    ExperimentEntry,
    ParetoExperiment,
    Settings,
)
from steering_core.config.trained import trained_layers, trained_models, with_path
from steering_core.config.validation import hint, validated
from steering_core.errors import ConfigError

T = TypeVar("T", bound=BaseModel)

#: The name of the last layer in messages.
TOP_LEVEL = "settings at top level"

#: The word for neutral text among the tasks of ``elsewhere``.
NEUTRAL_TEXT = "text"

#: In front of the keys of the section ``corrsteer`` in messages.
_PREFIX = "corrsteer."


# ------------------------------------------------------------------------------------ layers
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


def _experiment_layers(
    sections: Sections,
    name: str,
    entry: ExperimentEntry,
    overrides: Mapping[str, Any],
    prefix: str = "",
) -> list[Layer]:
    """Return the layers of the experiment ``name``, without the defaults of the schema."""
    model, task = _pair(sections, f"{prefix}experiments.{name}", entry)
    return [
        Layer(f"{prefix}settings", sections.settings),
        Layer(f"{prefix}models.{entry.model}.settings", model.settings),
        Layer(f"{prefix}tasks.{entry.task}.settings", task.settings),
        Layer(f"{prefix}experiments.{name}.settings", entry.settings),
        Layer(TOP_LEVEL, overrides),
    ]


def _pair(sections: Sections, where: str, entry: ExperimentEntry) -> tuple[Any, Any]:
    """Return the model and the task of ``entry``, which stands at ``where``."""
    for kind, key, known in (
        ("model", entry.model, sections.models),
        ("task", entry.task, sections.tasks),
    ):
        if key not in known:
            raise ConfigError(f"{where}.{kind}: there is no {kind} {key!r}{hint(key, known)}")
    return sections.models[entry.model], sections.tasks[entry.task]


def _check_sections(
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


# ------------------------------------------------------------- experiments of pareto.csv
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
        _pair(config, f"experiments.{name}", entry)
    _check_sections(Settings, config)
    for name in config.experiments:
        _check_layer(_resolve(config, {}, name), "")
        # The top level need not fit an experiment that this run does not make.
        _merged(config, overrides, name)
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
    found = _resolve(config, overrides, name)
    # The top level need not fit the experiments that this run does not make.
    _check_layer(found, ", and do not give another with --config")
    return found


def _resolve(config: Config, overrides: dict[str, Any], name: str) -> ParetoExperiment:
    entry, settings = config.experiments[name], _merged(config, overrides, name)
    model, task = with_path(entry.model, config.models[entry.model]), config.tasks[entry.task]
    layers = trained_layers(f"experiments.{name}", model, settings.layers, settings.layer)
    settings = settings.model_copy(update={"layers": layers})
    return Experiment(name, entry.model, entry.task, model, task, settings)


def _merged(config: Config, overrides: dict[str, Any], name: str) -> Settings:
    entry = config.experiments[name]
    return merge_layers(Settings, _experiment_layers(config, name, entry, overrides))


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


# -------------------------------------------------------------- experiments of CorrSteer
def load_corrsteer(raw: dict[str, Any]) -> dict[str, CorrSteerExperiment]:
    """Return every CorrSteer experiment of ``raw``, by name.

    Arms are merged by name: a layer that defines one arm keeps the others. A layer leaves out an
    arm by setting it to null.

    Raises:
        ConfigError: naming each unknown, misspelt or conflicting key.
    """
    section = load_section(raw)
    overrides = {k: v for k, v in raw.items() if k in CorrSteerSettings.model_fields}
    _check_sections(CorrSteerSettings, section, _PREFIX, _arms_by_name(section, overrides))
    _check_tables_model(section)
    found = {}
    for name, entry in _entries(section).items():
        if name in raw.get("experiments", {}):
            raise ConfigError(f"corrsteer: {name} is also the name of an experiment.")
        found[name] = _resolve_corrsteer(section, overrides, name, entry)
    found |= _ablations(section, overrides, found)
    for experiment in found.values():
        _check_sparse_methods(experiment)
        for arm_name, arm in experiment.settings.arms.items():
            where = f"corrsteer {experiment.name}: arms.{arm_name}.features_from"
            _check_transfer(where, arm, found)
    _check_methods_of_experiments(raw, found)
    # The top level need not fit the experiments that this run does not make.
    config, _ = load_config(raw)
    if _names_in(config, "plans"):
        for name in config.experiments:
            check_plans(_resolve(config, {}, name), found)
    return found


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
        entry, settings = config.experiments[name], _merged(config, overrides, name)
        model = with_path(entry.model, config.models[entry.model])
        # Not more is checked: the top level need not fit what this run does not make.
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


def plan_names(raw: dict[str, Any]) -> list[str]:
    """Return the names of the CorrSteer plans that any experiment with pareto.csv evaluates."""
    return _names(raw, "plans")


def program_names(raw: dict[str, Any]) -> list[str]:
    """Return the names of the programs that any experiment with pareto.csv declares."""
    return _names(raw, "programs")


def gated_names(raw: dict[str, Any]) -> list[str]:
    """Return the names of the gated methods that any experiment with pareto.csv declares."""
    return _names(raw, "gated")


def _names(raw: dict[str, Any], key: str) -> list[str]:
    config, overrides = load_config(raw)
    return sorted(_names_in(config, key) | set(overrides.get(key, {})))


def _names_in(config: Config, key: str) -> set[str]:
    sections = (config.models, config.tasks, config.experiments)
    own = [one.settings for of_kind in sections for one in of_kind.values()]
    return {name for layer in [config.settings, *own] for name in layer.get(key, {})}


def check_plans(experiment: ParetoExperiment, runs: Mapping[str, CorrSteerExperiment]) -> None:
    """Refuse a plan that cannot be evaluated in ``experiment``, with the reason.

    Args:
        experiment: delivers pareto.csv.
        runs: all CorrSteer experiments, by name.

    Raises:
        ConfigError: naming the plan.
    """
    for name, plan in experiment.settings.plans.items():
        where = f"experiments.{experiment.name}: plans.{name}"
        if plan.experiment not in runs:
            raise ConfigError(
                f"{where}: there is no CorrSteer experiment {plan.experiment!r}"
                f"{hint(plan.experiment, runs)}"
            )
        run = runs[plan.experiment]
        arms = {key: arm for key, arm in run.settings.arms.items() if arm.intervention_from is None}
        if plan.arm not in arms:
            raise ConfigError(
                f"{where}: {run.name} has no plan of an arm {plan.arm!r}{hint(plan.arm, arms)}"
            )
        if plan.seed not in run.settings.seeds:
            raise ConfigError(
                f"{where}: {run.name} has the seeds {run.settings.seeds}, not {plan.seed}."
            )
        mine, theirs = _model_of(experiment), _model_of(run)
        if mine != theirs:
            raise ConfigError(
                f"{where}: {run.name} steers the model {' '.join(theirs)}, and {experiment.name} "
                f"runs {' '.join(mine)}: a plan acts on the model that it was made for alone."
            )


def check_guards(raw: dict[str, Any], experiment: ParetoExperiment) -> None:
    """Refuse a guard with the probe of an experiment that has none of the same residuals.

    Args:
        raw: the configuration, for the other experiments.
        experiment: whose programs have guards.

    Raises:
        ConfigError: naming the program.
    """
    for name, program in experiment.settings.programs.items():
        where = f"experiments.{experiment.name}: programs.{name}.guards"
        for other in program.guarding_experiments:
            known = raw.get("experiments", {})
            if other not in known:
                raise ConfigError(f"{where}: there is no experiment {other!r}{hint(other, known)}")
            theirs = resolve(raw, other)
            if _model_of(theirs) != _model_of(experiment):
                raise ConfigError(
                    f"{where}: {other} runs another model, so its probe means nothing"
                )
            layers = {experiment.settings.layer, theirs.settings.layer} - {"auto"}
            if len(layers) > 1:
                raise ConfigError(
                    f"{where}: {other} has its probe at layer {theirs.settings.layer}, and "
                    f"{experiment.name} steers layer {experiment.settings.layer}: set the same"
                )


def _model_of(found: ParetoExperiment | CorrSteerExperiment) -> tuple[str, str, str]:
    return found.model.id, found.model.revision, found.model.dtype


def load_trained(raw: dict[str, Any]) -> dict[str, Model]:
    """Return the models of both parts of ``raw`` whose SAEs the rules train, by name.

    Raises:
        ConfigError: as :func:`steering_core.config.trained.trained_models`.
    """
    return trained_models(load_config(raw)[0].models, load_section(raw).models)


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
    """Validate the section ``corrsteer`` of ``raw`` alone."""
    return validated(CorrSteerSection, raw.get("corrsteer", {}), "corrsteer")


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
                f"on the task {pair.task}."
            )
    return {**entries, **section.experiments}


def _resolve_corrsteer(
    section: CorrSteerSection, overrides: dict[str, Any], name: str, entry: ExperimentEntry
) -> CorrSteerExperiment:
    layers = _experiment_layers(section, name, entry, overrides, _PREFIX)
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
                    f"corrsteer.ablations.{ablation}: {name} is also the name of an experiment."
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


def _check_transfer(where: str, arm: Arm, found: dict[str, CorrSteerExperiment]) -> None:
    """Refuse ``features_from`` if it names no arm that selects features."""
    source = arm.features_from
    if source is None:
        return
    if source.experiment not in found:
        raise ConfigError(
            f"{where}: there is no CorrSteer experiment {source.experiment!r}"
            f"{hint(source.experiment, found)}"
        )
    arms = found[source.experiment].settings.arms
    if source.arm not in arms or not arms[source.arm].selects:
        raise ConfigError(
            f"{where}: {source.experiment} selects no features for an arm {source.arm!r}"
            f"{hint(source.arm, (name for name in arms if arms[name].selects))}"
        )


def _check_methods_of_experiments(
    raw: dict[str, Any], found: dict[str, CorrSteerExperiment]
) -> None:
    """Refuse ``intervention_from`` if it cannot be evaluated there, with the reason.

    One rule answers such arms and another all other arms, so a name must be of one kind.
    """
    own: dict[str, str] = {}
    for experiment in found.values():
        for name, arm in experiment.settings.arms.items():
            if arm.intervention_from is not None:
                own[name] = experiment.name
    if not own:
        return
    for experiment in found.values():
        for name, arm in experiment.settings.arms.items():
            where = f"corrsteer {experiment.name}: arms.{name}"
            if arm.intervention_from is not None:
                _check_method(f"{where}.intervention_from", experiment, arm.intervention_from, raw)
            elif name in own:
                raise ConfigError(
                    f"{where}: {own[name]} has an arm of that name with intervention_from: give "
                    "one of them another name."
                )


def _check_method(
    where: str, experiment: CorrSteerExperiment, source: MethodSource, raw: dict[str, Any]
) -> None:
    known = raw.get("experiments", {})
    if source.experiment not in known:
        raise ConfigError(
            f"{where}: there is no experiment {source.experiment!r} that delivers pareto.csv"
            f"{hint(source.experiment, known)}"
        )
    other = resolve(raw, source.experiment)
    mine, theirs = _model_of(experiment), _model_of(other)
    if mine != theirs:
        raise ConfigError(
            f"{where}: {other.name} steers the model {' '.join(theirs)}, and {experiment.name} "
            f"runs {' '.join(mine)}: a method acts on the model that it was fitted on alone."
        )
    if source.method not in other.settings.methods:
        raise ConfigError(
            f"{where}: {source.method} is not among the methods of {other.name}: "
            f"{', '.join(other.settings.methods)}."
        )
    if source.strength == "selected":
        if not other.settings.n_validation_prompts:
            raise ConfigError(
                f"{where}: {other.name} selects no strength, since its n_validation_prompts is 0: "
                "name a strength."
            )
        return
    given, grid = source.strength.given(), strength_grid(source.method, other.settings)
    if given not in grid:
        listed = "; ".join(
            ", ".join(f"{key}: {value:g}" for key, value in point.items()) for point in grid
        )
        raise ConfigError(f"{where}.strength is none of {other.name}: give one of {listed}.")


def _check_sparse_methods(experiment: CorrSteerExperiment) -> None:
    """Refuse a ``sparse_methods.arm`` that selects no SAE features in this experiment."""
    methods, arms = experiment.settings.sparse_methods, experiment.settings.arms
    where = f"corrsteer {experiment.name}: sparse_methods.arm"
    if not methods.methods:
        return
    if methods.arm not in arms:
        raise ConfigError(
            f"{where}: there is no arm {methods.arm!r}"
            f"{hint(methods.arm, arms)}; set sparse_methods.methods to [] to run none."
        )
    arm = arms[methods.arm]
    if arm.space != "features" or not arm.selects:
        raise ConfigError(f"{where}: {methods.arm!r} selects no SAE features here.")
