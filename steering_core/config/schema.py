"""The schema of ``config.yaml``: the settings of an experiment, and the sections that define one.

The rules alone use this module. A stage gets the values that it reads as plain parameters, so an
edit here makes no stage stale unless a value changes.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Generic, Literal, TypeVar

from pydantic import AfterValidator, Field, field_validator, model_validator

from steering_core.config.methods import (
    BASELINE,
    DEFAULT_METHODS,
    DENSE_DIRECTIONS,
    METHODS,
    WITHOUT_VECTOR,
    directions_of,
    needs_fisher,
)
from steering_core.config.model import Closed, Count, Fraction, Model, Name, Positive
from steering_core.config.task import Task

TaskT = TypeVar("TaskT")
SettingsT = TypeVar("SettingsT")


def _distinct(values: list) -> list:
    if len(set(values)) < len(values):
        raise ValueError("has an entry twice")
    return values


def _no_strength(name: str) -> str:
    if re.search(r"-[0-9]+$", name):
        raise ValueError(
            "ends in a hyphen and a number, which stands for a strength in the name of an export "
            f"(exports/METHOD-NUMBER): call it {re.sub('-(?=[0-9]+$)', '_', name)!r}"
        )
    return name


def _no_folder(name: str) -> str:
    if name.lower() in FOLDERS:
        raise ValueError(f"is a folder of other results (results/{name.lower()}): rename it")
    return name


def _distinct_names(entries: dict) -> dict:
    seen: dict[str, str] = {}
    for name in entries:
        other = seen.setdefault(name.lower(), name)
        if other != name:
            raise ValueError(
                f"{other!r} and {name!r} differ only in case, and some file systems put their "
                "files in one folder: rename one"
            )
    return entries


#: Folders in ``results/`` that belong to no experiment.
FOLDERS = ("models", "gguf", "tables", "logs", "benchmarks")
#: Names that folders and files are made from. An experiment is a folder in ``results/``.
ExperimentName = Annotated[Name, AfterValidator(_no_folder)]
#: The method that a plan, program or gate defines.
MethodName = Annotated[Name, AfterValidator(_no_strength)]
DistinctNames = AfterValidator(_distinct_names)
Seed = Annotated[int, Field(ge=0, lt=2**31)]
LayerIndex = Annotated[int, Field(ge=0)]
Device = Literal["auto", "cpu", "cuda", "mps"]
Positives = Annotated[list[Positive], Field(min_length=1)]
Distinct = AfterValidator(_distinct)
Sweep = Annotated[Positives, Distinct]
Counts = Annotated[list[Count], Field(min_length=1), Distinct]

VARIANTS = ("path", "prefilter", "signed", "box", "subspace", "shared")


class PlanSource(Closed):
    """A CorrSteer plan that is evaluated like a method: the vectors of an arm at its layers.

    Its strengths are ``scales``: what the vectors are multiplied by.
    """

    experiment: str
    arm: Name
    seed: Seed = 0
    scales: Sweep = [1.0]


#: What a margin may be on.
ConceptDirection = Literal["probe", "mean_difference", "contrastive", "repe", "likelihood_gradient"]


class Guard(Closed):
    """What must not move: the vector may move the residual along it by ``kappa`` at most.

    ``principal_components`` are the first ``count`` of the training rows, each with its bound.
    ``probe`` is the probe of another ``experiment``, of the same model and layer. ``contrastive``
    is the mean difference over the pairs of a ``concept`` file. ``kappa`` is in standard deviations
    of the projection on training rows, up or down.
    """

    direction: Literal["principal_components", "probe", "contrastive"]
    count: Count | None = None
    experiment: str | None = None
    concept: str | None = None
    kappa: Annotated[float, Field(ge=0, allow_inf_nan=False)]

    @model_validator(mode="after")
    def _has_its_source(self) -> "Guard":
        sources = {
            "principal_components": "count",
            "probe": "experiment",
            "contrastive": "concept",
        }
        needed = sources[self.direction]
        for name in sources.values():
            if (getattr(self, name) is not None) != (name == needed):
                verb = "needs" if name == needed else "takes no"
                raise ValueError(f"a guard {self.direction} {verb} {name}")
        return self


class DeclaredProgram(Closed):
    """A program that is evaluated like a method: what the margin is on, and what is minimised.

    ``mode`` is ``uniform`` (one margin ``tau`` for every input, whatever its logit is), ``static``,
    ``shared`` or ``adaptive``, as for the registered programs. ``dense`` is the least vector with
    the margin, without features: the floor of the sparse ones. ``metric`` is of the norm,
    ``feature_cost`` what a coefficient of each feature costs in the L1 norm. With a list of
    directions the margin is asked for on each of them. ``guards`` are directions along which the
    vector may move the residual only so far. A uniform QP on one direction without guards may have
    ``features`` instead of ``qp_lambda``: for each count, the λ whose solution has that many.
    """

    program: Literal["qp", "socp", "dense"]
    mode: Literal["uniform", "static", "adaptive", "shared"] = "static"
    concept_direction: ConceptDirection | list[ConceptDirection] = "probe"
    metric: Literal["identity", "covariance", "fisher"] = "identity"
    feature_cost: Literal["unit", "fisher"] = "unit"
    tau: Sweep
    qp_lambda: Sweep | None = None
    features: Counts | None = None
    epsilon: Sweep | None = None
    guards: list[Guard] = []

    @model_validator(mode="after")
    def _has_its_parameter(self) -> "DeclaredProgram":
        needed = {"qp": "qp_lambda", "socp": "epsilon"}.get(self.program)
        if self.features is not None:
            if (self.program, self.mode, len(self.directions)) != ("qp", "uniform", 1):
                raise ValueError("features is for a qp with mode: uniform and one direction")
            if self.guards:
                raise ValueError("features cannot be used with guards: leave one of them out")
            needed = None
        for name in ("qp_lambda", "epsilon"):
            if (getattr(self, name) is not None) != (name == needed):
                verb = "needs" if name == needed else "takes no"
                raise ValueError(f"a program {self.program} {verb} {name}")
        if self.program == "dense" and self.mode == "adaptive":
            raise ValueError("a dense program is static, shared or uniform")
        if self.program == "dense" and self.feature_cost != "unit":
            raise ValueError("a dense program uses no features, so it takes no feature_cost")
        return self

    @model_validator(mode="after")
    def _has_distinct_directions(self) -> "DeclaredProgram":
        if isinstance(self.concept_direction, list):
            found = _distinct(self.concept_direction)
            if not found:
                raise ValueError("concept_direction: names no direction: list at least one")
        return self

    @property
    def directions(self) -> list[str]:
        """What margins are on, at least one direction."""
        return directions_of(self)

    @model_validator(mode="after")
    def _takes_its_guards(self) -> "DeclaredProgram":
        if sum(guard.direction == "principal_components" for guard in self.guards) > 1:
            raise ValueError("guards name principal_components twice: give one count")
        if len(set(self.guarding_experiments)) < len(self.guarding_experiments):
            raise ValueError("guards name the probe of an experiment twice")
        stems = [Path(file).stem for file in self.guarding_concepts]
        if len(set(stems)) < len(stems):
            raise ValueError(
                "guards name two concept files of one name: leave one out or rename it"
            )
        return self

    @property
    def guarding_experiments(self) -> list[str]:
        """The experiments whose probes are guards, in their order."""
        return [guard.experiment for guard in self.guards if guard.experiment is not None]

    @property
    def guarding_concepts(self) -> list[str]:
        """The concept files whose contrastive directions are guards, in their order."""
        return [guard.concept for guard in self.guards if guard.concept is not None]

    @property
    def needs_fisher(self) -> bool:
        """Whether the Fisher information has to be estimated for it."""
        return needs_fisher(self)

    @property
    def needs_likelihood_gradient(self) -> bool:
        """Whether the likelihood gradient has to be computed for it."""
        return "likelihood_gradient" in self.directions

    def has_floor(self, other: "DeclaredProgram") -> bool:
        """Whether ``other`` is the dense program with the same margin and metric."""
        same = ("mode", "directions", "metric")
        return (
            other.program == "dense"
            and not other.guards
            and all(getattr(other, name) == getattr(self, name) for name in same)
        )


class Condition(Closed):
    """Where a gated method steers: the probe's logit is below a number, or a feature above one.

    ``above`` is an activation as a length along the feature's unit decoder row.
    """

    probe_below: Annotated[float, Field(allow_inf_nan=False)] | None = None
    feature: LayerIndex | None = None
    above: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _is_one_condition(self) -> "Condition":
        if (self.probe_below is None) == (self.feature is None):
            raise ValueError("a gate needs probe_below, or feature and above")
        if (self.feature is None) != (self.above is None):
            raise ValueError(
                "a gate on a feature needs feature and above, one on the probe neither"
            )
        return self


class Gated(Closed):
    """Another method of the experiment that acts only where a condition holds."""

    method: Name
    gate: Condition


class LoraSettings(Closed):
    """How the adapter of the method ``lora`` is trained, and the strengths that it is tried at.

    ``modules`` are names of the model's linear modules, or the ends of such names, as peft takes
    them. ``scales`` are what the adapter's change of the weights is multiplied by; 1 is as trained.
    """

    rank: Count = 8
    epochs: Count = 3
    learning_rate: Positive = 2e-4
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    modules: Annotated[list[str], Field(min_length=1), Distinct] | Literal["all-linear"] = (
        "all-linear"
    )
    scales: Sweep = [0.25, 0.5, 1.0]


class FisherSettings(Closed):
    """How the Fisher information is estimated: what it rests on and how it is shrunk."""

    texts: Annotated[int, Field(ge=4)] = 300
    tokens: Count = 24
    samples: Count = 8
    shrinkage: Annotated[float, Field(gt=0, le=1)] | Literal["auto"] = "auto"


class NeutralTexts(Closed):
    """A dataset of texts that have nothing to do with the concept."""

    dataset: str
    revision: str = "main"
    subset: str | None = None
    split: str = "train"
    text: str


class Settings(Closed):
    """The settings of an experiment that delivers ``pareto.csv``.

    The defaults are the published values where there are any; strengths are in units of the model.
    ``config.yaml`` describes each key.
    """

    seed: Seed = 0

    # examples
    rows_per_class: Count = 500
    train_fraction: Fraction = 0.5
    validation_fraction: Fraction = 0.1
    test_fraction: Fraction = 0.2
    max_tokens: Annotated[int, Field(ge=2)] = 128
    long_texts: Literal["error", "truncate", "drop"] = "error"
    chat_template: bool | Literal["auto"] = "auto"

    # activations
    layer: LayerIndex | Literal["auto", "effect"] = "auto"
    effect_layers: Annotated[list[LayerIndex], Distinct] = []
    effect_direction: Literal[DENSE_DIRECTIONS] = "caa_mean_diff"
    layers: Annotated[list[LayerIndex], Field(min_length=1)] | Literal["all"] = "all"
    cached_positions: Literal["last", "all"] = "last"
    shards: Count = 1
    batch_tokens: Count = 2048
    device: Device = "auto"

    # probes
    probe_folds: Annotated[int, Field(ge=2)] = 5
    probe_regularisation: Positives = [1e-4, 1e-3, 1e-2, 0.1, 1.0]

    # methods
    methods: Annotated[list[Literal[METHODS]], Field(min_length=1), Distinct] = list(
        DEFAULT_METHODS
    )
    strengths: Sweep = [0.1, 0.25, 0.5, 1.0, 2.0]
    topk: Count = 10
    units: Literal["model", "absolute"] = "model"
    qp_tau: Sweep = [0.5, 1.0, 2.0, 4.0]
    qp_lambda: Sweep = [1.0, 10.0]
    socp_tau: Sweep = [0.5, 2.0]
    socp_epsilon: Sweep = [0.1, 0.25, 0.5, 1.0, 2.0]
    plans: Annotated[dict[MethodName, PlanSource], DistinctNames] = {}
    programs: Annotated[dict[MethodName, DeclaredProgram], DistinctNames] = {}
    gated: Annotated[dict[MethodName, Gated], DistinctNames] = {}
    lora: LoraSettings = LoraSettings()
    fisher: FisherSettings = FisherSettings()

    # variants of the programs
    variants: Annotated[list[Literal[VARIANTS]], Field(min_length=1), Distinct] = list(VARIANTS)
    variant_rows: Count = 50
    variant_tau: Positive = 0.5
    variant_lambda: Sweep = [10.0]
    variant_epsilon: Sweep = [0.5]
    cone_solver: Literal["clarabel", "scs"] = "clarabel"
    prefilter_features: Annotated[int, Field(ge=2)] = 2000
    box_factor: Positive = 1.0
    subspace_components: Count = 50
    subspace_directions: Count = 5

    # generation
    n_prompts: Count = 50
    n_validation_prompts: Annotated[int, Field(ge=0)] = 20
    draws: Count = 1
    new_tokens: Count = 100
    temperature: Positive = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.9
    positions: Literal["last", "all"] = "last"
    batch_prompts: Count = 50

    # metrics
    bootstrap_resamples: Count = 2000
    selection_kl: Positive = 1.0
    matched_effect: Annotated[float, Field(gt=0, lt=1)] | Literal["half"] = "half"
    matched_factor: Annotated[float, Field(ge=1)] = 1.5
    matched_features: Count = 12

    # dose
    fluent_perplexity: Annotated[float, Field(ge=1)] = 2.0
    fluent_repetition: Annotated[float, Field(ge=0, le=1)] = 0.1

    # cost elsewhere
    elsewhere: Annotated[list[Name], Distinct] = []
    elsewhere_rows: Count = 200
    elsewhere_text: NeutralTexts = NeutralTexts(
        dataset="Salesforce/wikitext", subset="wikitext-2-raw-v1", split="test", text="text"
    )

    @model_validator(mode="after")
    def _splits_leave_room(self) -> "Settings":
        used = self.train_fraction + self.validation_fraction + self.test_fraction
        if used >= 1:
            raise ValueError(
                "train_fraction + validation_fraction + test_fraction must stay below 1: "
                "the rest is the split of the evaluation probe"
            )
        return self

    @model_validator(mode="after")
    def _layers_can_be_tried(self) -> "Settings":
        if self.layer == "effect":
            if len(self.effect_layers) < 2:
                raise ValueError("layer: effect needs effect_layers, two layers or more to try")
            if self.n_validation_prompts == 0:
                raise ValueError("layer: effect needs n_validation_prompts, which it steers")
            lost = [] if self.layers == "all" else set(self.effect_layers) - set(self.layers)
            if lost:
                raise ValueError(f"effect_layers: layers does not have {min(lost)}")
        return self

    @model_validator(mode="after")
    def _subspace_fits(self) -> "Settings":
        if self.subspace_directions > self.subspace_components:
            raise ValueError(
                "subspace_directions must not exceed subspace_components: directions are chosen "
                "among the components"
            )
        return self

    @field_validator("methods")
    @classmethod
    def _has_baseline(cls, values: list) -> list:
        if BASELINE not in values:
            raise ValueError(f"must contain {BASELINE}: every other method is compared with it")
        return values

    @field_validator("plans", "programs", "gated")
    @classmethod
    def _plans_have_names_of_their_own(cls, values: dict) -> dict:
        taken = sorted(set(METHODS) & set(values))
        if taken:
            raise ValueError(f"{taken[0]} is the name of a method")
        return values

    @model_validator(mode="after")
    def _programs_have_names_of_their_own(self) -> "Settings":
        taken = sorted(set(self.plans) & set(self.programs))
        if taken:
            raise ValueError(f"{taken[0]} is a plan and a program: rename one")
        return self

    @model_validator(mode="after")
    def _gated_methods_are_there(self) -> "Settings":
        for name, gated in self.gated.items():
            if name in {**self.plans, **self.programs}:
                raise ValueError(f"{name} is a gated method and a plan or a program: rename one")
            steering = {*self.methods, *self.programs} - {BASELINE, *WITHOUT_VECTOR}
            if gated.method not in steering:
                raise ValueError(
                    f"gated.{name}: {gated.method} is no method that steers and no declared "
                    "program of the experiment"
                )
        return self

    @model_validator(mode="after")
    def _counts_of_features_have_their_floor(self) -> "Settings":
        for name, one in self.programs.items():
            if one.features is not None and not any(map(one.has_floor, self.programs.values())):
                raise ValueError(
                    f"programs.{name}: features needs the dense end of its curve: a further "
                    "program {program: dense, mode: uniform} with the same concept_direction and "
                    "metric"
                )
        return self

    @model_validator(mode="after")
    def _guarding_concepts_have_names_of_their_own(self) -> "Settings":
        files: dict[str, str] = {}
        for name, one in self.programs.items():
            for file in one.guarding_concepts:
                if files.setdefault(Path(file).stem, file) != file:
                    raise ValueError(
                        f"programs.{name}.guards: {file} and {files[Path(file).stem]} have one "
                        "name, and so would their directions: rename a file"
                    )
        return self

    @field_validator("variants")
    @classmethod
    def _has_path(cls, values: list) -> list:
        if "path" not in values:
            raise ValueError("must contain path: every other variant is compared with it")
        return values


class ExperimentEntry(Closed):
    """The names of a model and a task, and the experiment's own settings."""

    model: Name
    task: Name
    settings: dict = {}


class DemoWorld(Closed):
    """Sizes of the corpus and the language model that the demo makes."""

    seed: Seed = 0
    documents: Count = 30000
    labelled: Count = 1000
    d_model: Count = 64
    n_layers: Count = 4
    training_steps: Count = 1000


class Config(Closed):
    """All of ``config.yaml``, without the settings at its top level."""

    settings: dict = {}
    models: Annotated[dict[Name, Model], DistinctNames]
    tasks: dict[Name, Task]
    experiments: Annotated[dict[ExperimentName, ExperimentEntry], DistinctNames]
    demo_world: DemoWorld = DemoWorld()
    corrsteer: dict = {}  # checked by config/corrsteer_schema.py


@dataclass(frozen=True)
class Experiment(Generic[TaskT, SettingsT]):
    """An experiment of either kind, with its sections and its merged settings."""

    name: str
    model_name: str
    task_name: str
    model: Model
    task: TaskT
    settings: SettingsT


#: An experiment that delivers ``pareto.csv``.
ParetoExperiment = Experiment[Task, Settings]
