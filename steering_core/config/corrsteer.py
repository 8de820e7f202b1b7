"""The section ``corrsteer`` of the configuration: models, tasks, arms and their settings."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from steering_core.config.closed import Closed, Count, Fraction, Name, Positive
from steering_core.config.corrsteer_task import CorrSteerTask
from steering_core.config.methods import CORRSTEER_METHODS
from steering_core.config.model import Model
from steering_core.config.schema import ExperimentEntry

Seed = Annotated[int, Field(ge=0, lt=2**31)]


class Transfer(Closed):
    """The features that an arm of another experiment selected.

    In the arms of an ablation ``{tables_model}`` in the name stands for that model.
    """

    experiment: str
    arm: Name = "corrsteer_a"


class Arm(Closed):
    """One way to choose features and to steer with them.

    ``strategy``: ``single`` is the best feature over all layers (S), ``all`` the best of every
    layer (A), ``pruned`` the layers of A that alone beat the unsteered validation accuracy (P),
    ``validated`` the best of these layers. ``score`` ranks features by correlation with success,
    mutual information (SPARE), Fisher ratio (DSG), difference of means (CAA), or at random.
    ``space``: SAE features, or raw dimensions of the residual stream. ``mask`` and
    ``pooling`` say which tokens of a sample count and how they become one number, ``task`` as the
    task has it; ``coefficient_pooling`` the same for coefficients. ``coefficient`` is the mean over
    successful samples (minus that over failures for a feature that goes against success), the
    difference of the two, the mean over all samples (``overall``), or the mean over successful ones
    for features of either direction (``success``, as the paper words it). ``sign``: features that
    go with success, against it, or both. ``scale`` multiplies the coefficients. ``per_layer``
    features of a layer are steered, ``all`` of raw space.
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

    @model_validator(mode="after")
    def _fits(self) -> "Arm":
        if self.per_layer == "all" and self.space != "raw":
            raise ValueError("per_layer: all is the whole vector of raw space, not of features")
        if self.per_layer == "all" and self.sign != "both":
            raise ValueError(
                f"per_layer: all takes dimensions of either sign: {self.sign} of sign "
                "would do nothing, set it to both"
            )
        ignored = self.model_fields_set - {"features_from", "strategy"}
        ignored = {k for k in ignored if getattr(self, k) != type(self).model_fields[k].default}
        if self.features_from is not None and ignored:
            raise ValueError(
                f"features_from takes the vectors of that arm as they are: {sorted(ignored)[0]} "
                "would do nothing here, set it there"
            )
        return self


#: A draw that knows no label, neither in the feature nor in its coefficient.
RANDOM = {"score": "random", "sign": "both", "coefficient": "overall"}

#: The arms of the published main tables, less the unsteered one, which is always run.
DEFAULT_ARMS = {
    # Among all features that fire, whatever they say about success.
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
    """The supervised baseline, on the rows that selection uses."""

    method: Literal["none", "full", "lora"] = "none"
    learning_rate: Positive | None = None  # None: 1e-5, 5e-6 below 2 000 rows
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    epochs: Count = 1
    lora_rank: Count = 16


Strengths = Annotated[list[Positive], Field(min_length=1)]


class Bridge(Closed):
    """The methods of optimal sparse steering on the best layer of an arm.

    ``single_feature``, ``topk_features`` and the programs have the features that the arm selected
    there as their dictionary. The strength that is best on validation is used; where none beats no
    steering there, the method is undefined.
    """

    methods: list[Literal[CORRSTEER_METHODS]] = Field(default=list(CORRSTEER_METHODS))
    arm: Name = "corrsteer_a"
    features: Count = 20
    strengths: Strengths = Field(default=[0.1, 0.25, 0.5, 1.0])  # mean residual norms
    tau: Strengths = Field(default=[0.5, 2.0, 4.0, 8.0])  # margin of the probe of success, logits
    topk: Count = 10
    epsilon: Strengths = Field(default=[5.0])  # of the second-order cone program
    weight: Positive = 1.0  # lambda of the quadratic program


class CorrSteerSettings(Closed):
    """Everything a CorrSteer experiment can vary."""

    seeds: Annotated[list[Seed], Field(min_length=1)] = Field(default=[0])
    arms: dict[Name, Arm] = Field(default={name: Arm(**arm) for name, arm in DEFAULT_ARMS.items()})
    fine_tuning: FineTuning = FineTuning()
    bridge: Bridge = Bridge()

    # examples
    train_rows: Count = 4000
    validation_rows: Count = 200
    test_rows: Count | None = None
    own_test_fraction: Fraction = 0.7
    validation_share: Fraction = 0.1
    published_split: bool = False
    max_tokens: Annotated[int, Field(ge=2)] | None = None  # None: the model's context
    long_prompts: Literal["error", "drop"] = "error"

    # prompts: the same for selection and evaluation
    few_shot: Annotated[int, Field(ge=0)] = 0
    chain_of_thought: bool = False
    restrict_options: bool = False
    chat_template: bool = False
    published_prompt: bool = False
    new_tokens: Count | None = None  # None: the task's

    # selection
    layers: list[Annotated[int, Field(ge=0)]] | Literal["all"] = "all"
    published_site: bool = False
    published_mask: bool = False
    keep: Count = 20
    min_outcomes: Count = 10  # training successes, and failures, that selection needs
    snapshots: list[Count] = Field(default=[10, 30, 100, 300, 1000, 3000])
    shards: Count = 1

    # running
    batch_rows: Count = 8
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    bootstrap_resamples: Count = 2000

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, values: list) -> list:
        if len(set(values)) < len(values):
            raise ValueError("has an entry twice")
        return values

    @field_validator("arms")
    @classmethod
    def _names(cls, arms: dict) -> dict:
        taken = {"unsteered", "fine_tuning", *CORRSTEER_METHODS} & set(arms)
        if taken:
            raise ValueError(f"{sorted(taken)[0]} is the name of another method")
        return arms

    @model_validator(mode="after")
    def _fits(self) -> "CorrSteerSettings":
        if self.restrict_options and self.chain_of_thought:
            raise ValueError("restrict_options leaves no room for chain_of_thought")
        wanted = {f"arms.{k}.per_layer": a.per_layer for k, a in self.arms.items()}
        if self.bridge.methods:
            wanted["bridge.features"] = self.bridge.features
        for key, count in wanted.items():
            if count != "all" and count > self.keep:
                raise ValueError(f"{key} is {count}, and keep leaves {self.keep} of a layer")
        return self


class CorrSteerModel(Model):
    """A model. With ``paired: false`` it stands only in the experiments that name it."""

    paired: bool = True


class Ablation(Closed):
    """Arms that replace all others, run by ``tables_model`` on some tasks.

    The experiments are named ``{tables_model}_{task}_{ablation}``.
    """

    tasks: Annotated[list[Name], Field(min_length=1)]
    arms: dict[Name, Arm]


class CorrSteerSection(Closed):
    """The section ``corrsteer``. Experiments are all pairs ``{model}_{task}`` of paired ones.

    ``tables_model`` names the model whose experiments stand in the published tables;
    ``experiments`` adds pairs under names of their own, and settings to any pair.
    """

    ablations: dict[Name, Ablation] = Field(default={})

    settings: dict = Field(default={})
    models: dict[Name, CorrSteerModel] = Field(default={})
    tasks: dict[Name, CorrSteerTask] = Field(default={})
    experiments: dict[Name, ExperimentEntry] = Field(default={})
    tables_model: Name = "gemma2b"
