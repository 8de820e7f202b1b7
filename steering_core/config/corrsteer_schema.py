"""The section ``corrsteer`` of ``config.yaml``: models, tasks, arms, and their settings.

The rules alone use this module. A stage gets the values that it reads as plain parameters, so an
edit here makes no stage stale unless a value changes.
"""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from steering_core.config.methods import CORRSTEER_METHODS, METHODS, UNSTEERED
from steering_core.config.model import Closed, Count, Fraction, Model, Name, Positive
from steering_core.config.schema import (
    ConceptDirection,
    DeclaredProgram,
    Device,
    Distinct,
    DistinctNames,
    Experiment,
    ExperimentEntry,
    ExperimentName,
    FisherSettings,
    LayerIndex,
    MethodName,
    Positives,
    Seed,
)


class CorrSteerTask(Closed):
    """A task of :mod:`steering_core.corrsteer.tasks`, with the dataset to read if not its own.

    With ``paired: false`` the task is used only by the experiments that name it.
    """

    paired: bool = True
    task: Name
    dataset: str | None = None
    subsets: list[str] | None = None
    revision: str = "main"
    settings: dict = Field(default={})


class CorrSteerModel(Model):
    """A model. With ``paired: false`` it is used only by the experiments that name it."""

    paired: bool = True


class Transfer(Closed):
    """An arm of another experiment, whose features and vectors are used.

    In an ablation, ``{tables_model}`` in the name of the experiment stands for that model.
    """

    experiment: str
    arm: Name = "corrsteer_a"


class MethodStrength(Closed):
    """A strength of a method, by the settings that its grid is made of.

    A fixed direction has ``alpha``; a program has ``tau`` and ``lam`` (QP) or ``epsilon`` (SOCP).
    """

    alpha: Positive | None = None
    tau: Positive | None = None
    lam: Positive | None = None
    epsilon: Positive | None = None

    def parts(self) -> dict[str, float]:
        """Return the parts that are set."""
        return self.model_dump(exclude_none=True)


class MethodSource(Closed):
    """A method of an experiment that delivers pareto.csv, fitted on the labels of its task.

    It may also be a plan, a declared program or a gated method. ``strength`` is ``selected``, the
    one that pareto.csv selects on the validation prompts, or of a registered method one of the
    experiment's grid.
    """

    experiment: Name
    method: Name
    strength: Literal["selected"] | MethodStrength = "selected"


class Arm(Closed):
    """A way to select features and to steer with them.

    - ``strategy``: ``single`` steers the best feature of all layers (CorrSteer-S), ``all`` the best
      feature of each layer (A). ``pruned`` keeps those layers of A that alone have a higher
      validation accuracy than the unsteered model (P); ``validated`` keeps the best of these.
    - ``score`` ranks features: by correlation with success (``pearson``), mutual information
      (SPARE), Fisher ratio (DSG), difference of class means (``contrastive``, CAA), or at random.
    - ``space``: SAE features, or raw dimensions of the residual stream.
    - ``mask``: which tokens of a sample are read, those of the answer or all.
    - ``pooling`` reduces them to one number, in the way that the task sets unless given;
      ``coefficient_pooling`` is the same choice for the coefficients.
    - ``coefficient``: ``mean`` is the mean over successful samples for a feature that is positively
      associated with success, and minus the mean over failures for one that is negatively
      associated. ``difference`` is the mean over successes minus the mean over failures,
      ``overall`` the mean over all samples. ``success``, as the paper words it, is the mean over
      successes for every feature.
    - ``sign``: steer features with a positive association, a negative one, or both.
    - ``scale`` multiplies the coefficients.
    - ``per_layer``: features steered in a layer; ``all`` is for raw space.
    - ``features_from``: use the vectors of an arm of another CorrSteer experiment.
    - ``intervention_from``: answer under a method of an experiment that delivers pareto.csv. Such
      an arm selects no features here.
    """

    strategy: Literal["single", "all", "pruned", "validated"] = "all"
    score: Literal["pearson", "mutual_information", "fisher", "contrastive", "random"] = "pearson"
    space: Literal["features", "raw"] = "features"
    mask: Literal["generation", "all"] = "generation"
    pooling: Literal["task", "max", "mean"] = "task"
    coefficient_pooling: Literal["same", "max", "mean"] = "same"
    coefficient: Literal["mean", "difference", "overall", "success"] = "mean"
    sign: Literal["positive", "negative", "both"] = "positive"
    scale: Positive = 1.0
    per_layer: Count | Literal["all"] = 1
    features_from: Transfer | None = None
    intervention_from: MethodSource | None = None

    @model_validator(mode="after")
    def _fits(self) -> "Arm":
        if self.per_layer == "all" and self.space != "raw":
            raise ValueError("per_layer: all needs space: raw, where it is the whole vector")
        if self.per_layer == "all" and self.sign != "both":
            raise ValueError(
                f"per_layer: all uses dimensions of both signs, so sign: {self.sign} would have no "
                "effect: set sign to both"
            )
        ignored = self.model_fields_set - {"features_from", "strategy"}
        ignored = {k for k in ignored if getattr(self, k) != type(self).model_fields[k].default}
        if self.features_from is not None and ignored:
            raise ValueError(
                f"features_from uses the vectors of that arm unchanged, so {sorted(ignored)[0]} "
                "would have no effect here: set it in that arm"
            )
        others = self.model_fields_set - {"intervention_from"}
        others = {k for k in others if getattr(self, k) != type(self).model_fields[k].default}
        if self.intervention_from is not None and others:
            raise ValueError(
                f"intervention_from steers as the other experiment does, so {sorted(others)[0]} "
                "would have no effect here: leave it out"
            )
        return self

    @property
    def selects(self) -> bool:
        """Whether the arm selects features in its own experiment."""
        return self.features_from is None and self.intervention_from is None


#: A random feature. Neither the feature nor its coefficient depends on the labels.
RANDOM = {"score": "random", "sign": "both", "coefficient": "overall"}

#: The arms of the published main tables. The unsteered model is always run as well.
DEFAULT_ARMS = {
    # Drawn from all features that fire.
    "random_feature": {"strategy": "single", **RANDOM},
    "random_all": {"strategy": "all", **RANDOM},
    "corrsteer_s": {"strategy": "single"},
    "corrsteer_a": {"strategy": "all"},
    "corrsteer_p": {"strategy": "pruned"},
    "spare_mi": {"strategy": "all", "score": "mutual_information"},
    "dsg_fisher": {"strategy": "all", "score": "fisher"},
    "caa": {
        "strategy": "validated",
        "score": "contrastive",
        "space": "raw",
        "pooling": "mean",
        "sign": "both",
        "coefficient": "difference",
        "per_layer": "all",
    },
}


class FineTuning(Closed):
    """The supervised baseline: fine-tuning on the training rows that selection uses."""

    method: Literal["none", "full", "lora"] = "none"
    learning_rate: Positive | None = None  # None: 1e-5, or 5e-6 with fewer than 2 000 rows
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    epochs: Count = 1
    lora_rank: Count = 16


#: Names of rows of the table of results that are no arms.
_NOT_ARMS = (UNSTEERED, "fine_tuning", *METHODS)


class SparseMethods(Closed):
    """The methods of optimal sparse steering, at the best layer of an arm.

    ``single_feature``, ``topk_features`` and the programs use the features that the arm selected
    there as their dictionary. A method runs at the strength with the best validation accuracy. It
    has no result if no strength is better than no steering there. ``programs`` declares further
    programs, as in an experiment that delivers pareto.csv; ``fisher`` says how the Fisher
    information is estimated for those that need it.
    """

    methods: list[Literal[CORRSTEER_METHODS]] = Field(default=list(CORRSTEER_METHODS))
    arm: Name = "corrsteer_a"
    features: Count = 20
    strengths: Positives = Field(default=[0.1, 0.25, 0.5, 1.0])  # in mean residual norms
    # What the margins of the registered programs are on, learned from success on training rows.
    concept_direction: (
        ConceptDirection | Annotated[list[ConceptDirection], Field(min_length=1), Distinct]
    ) = "probe"
    # Of tau, epsilon and qp_lambda: absolute, or in typical logits and residual norms.
    units: Literal["model", "absolute"] = "absolute"
    tau: Positives = Field(default=[0.5, 2.0, 4.0, 8.0])  # margins, in logits
    topk: Count = 10
    epsilon: Positives = Field(default=[5.0])  # norm budget of the SOCP
    qp_lambda: Positive = 1.0  # λ of the QP
    programs: Annotated[dict[MethodName, DeclaredProgram], DistinctNames] = Field(default={})
    fisher: FisherSettings = FisherSettings()

    @field_validator("programs")
    @classmethod
    def _can_be_learned_here(cls, programs: dict) -> dict:
        for name, program in programs.items():
            if name in _NOT_ARMS:
                raise ValueError(f"{name} is the name of another method: choose another one")
            other = {guard.direction for guard in program.guards} - {"principal_components"}
            if other:
                raise ValueError(
                    f"{name}: a task has no guard {sorted(other)[0]}, only principal_components: "
                    "declare the program in an experiment that delivers pareto.csv, and let an arm "
                    "steer with it (intervention_from)"
                )
        return programs

    @model_validator(mode="after")
    def _has_as_many_features(self) -> "SparseMethods":
        for name, program in self.programs.items():
            if max(program.features or [0]) > self.features:
                raise ValueError(
                    f"programs.{name}.features asks for {max(program.features)}, the dictionary "
                    f"has the {self.features} features of sparse_methods.features: raise that one"
                )
        return self

    @property
    def names(self) -> list[str]:
        """What runs, in the order of the rows of the table of results."""
        return [*self.methods, *self.programs]


class CorrSteerSettings(Closed):
    """The settings of a CorrSteer experiment, which delivers ``corrsteer.csv``."""

    seeds: Annotated[list[Seed], Field(min_length=1), Distinct] = Field(default=[0])
    arms: dict[Name, Arm] = Field(default={name: Arm(**arm) for name, arm in DEFAULT_ARMS.items()})
    fine_tuning: FineTuning = FineTuning()
    sparse_methods: SparseMethods = SparseMethods()

    # examples
    train_rows: Count = 4000
    validation_rows: Count = 200
    test_rows: Count | None = None
    own_test_fraction: Fraction = 0.7
    validation_share: Fraction = 0.1
    published_split: bool = False
    max_tokens: Annotated[int, Field(ge=2)] | None = None  # None: the model's context
    long_prompts: Literal["error", "drop"] = "error"

    # prompts, for selection and evaluation alike
    few_shot: Annotated[int, Field(ge=0)] = 0
    chain_of_thought: bool = False
    restrict_options: bool = False
    chat_template: bool = False
    published_prompt: bool = False
    new_tokens: Count | None = None  # None: the task's

    # selection
    layers: list[LayerIndex] | Literal["all"] = "all"
    published_site: bool = False
    published_mask: bool = False
    keep: Count = 20
    min_outcomes: Count = 10  # training successes, and failures, needed to select a feature
    snapshots: list[Count] = Field(default=[10, 30, 100, 300, 1000, 3000])
    shards: Count = 1

    # running
    batch_rows: Count = 8
    device: Device = "auto"
    bootstrap_resamples: Count = 2000

    @field_validator("arms")
    @classmethod
    def _names(cls, arms: dict) -> dict:
        taken = {UNSTEERED, "fine_tuning", *CORRSTEER_METHODS} & set(arms)
        if taken:
            raise ValueError(f"{sorted(taken)[0]} is the name of another method")
        return arms

    @model_validator(mode="after")
    def _fits(self) -> "CorrSteerSettings":
        if self.restrict_options and self.chain_of_thought:
            raise ValueError(
                "restrict_options and chain_of_thought exclude each other: the first token is a "
                "letter"
            )
        both = sorted(set(self.arms) & set(self.sparse_methods.programs))
        if both:
            raise ValueError(
                f"sparse_methods.programs: {both[0]} is an arm and a program: rename one"
            )
        wanted = {f"arms.{k}.per_layer": a.per_layer for k, a in self.arms.items()}
        if self.sparse_methods.names:
            wanted["sparse_methods.features"] = self.sparse_methods.features
        for key, count in wanted.items():
            if count != "all" and count > self.keep:
                raise ValueError(
                    f"{key} is {count}, but keep: {self.keep} keeps fewer features of a layer"
                )
        return self


class Ablation(Closed):
    """Arms that ``tables_model`` runs on some tasks, instead of all other arms.

    The experiments are called ``{tables_model}_{task}_{ablation}``.
    """

    tasks: Annotated[list[Name], Field(min_length=1)]
    arms: dict[Name, Arm]


class CorrSteerSection(Closed):
    """The section ``corrsteer``.

    Each paired model on each paired task is an experiment ``{model}_{task}``. ``experiments`` adds
    further pairs under names of their own, and settings to any pair. ``tables_model`` is the model
    whose experiments are in the published tables.
    """

    ablations: dict[Name, Ablation] = Field(default={})
    settings: dict = Field(default={})
    models: dict[Name, CorrSteerModel] = Field(default={})
    tasks: dict[Name, CorrSteerTask] = Field(default={})
    experiments: Annotated[dict[ExperimentName, ExperimentEntry], DistinctNames] = Field(default={})
    tables_model: Name = "gemma2b"


#: An experiment that delivers ``corrsteer.csv``.
CorrSteerExperiment = Experiment[CorrSteerTask, CorrSteerSettings]
