"""The closed schema of ``config.yaml``. A key that is not here is an error."""

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

METHODS = (
    "no_steering",
    "random_direction",
    "caa_mean_diff",
    "caa_contrastive",
    "caa_repe",
    "single_feature",
    "topk_features",
    "convex_optimal",
    "qp_optimal",
    "socp_adaptive",
    "qp_adaptive",
    "socp_shared",
    "qp_shared",
)
VARIANTS = ("path", "prefilter", "signed", "box", "subspace", "shared")

Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$")]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(gt=0, lt=1)]


class Closed(BaseModel):
    """Base of all sections: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    @field_validator("*", mode="before")
    @classmethod
    def _no_flags(cls, value: Any, info: ValidationInfo) -> Any:
        if cls.model_fields[str(info.field_name)].annotation is bool:
            return value
        # YAML reads yes, on and true as a flag, and Python would take a flag for the number 1.
        entries = value if isinstance(value, list) else [value]
        if any(isinstance(entry, bool) for entry in entries):
            raise ValueError("is a yes/no value, and no key here takes one")
        return value


class Settings(Closed):
    """Everything an experiment can vary. The defaults are the published ones where those exist."""

    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0

    # examples
    rows_per_class: Count = 500
    train_fraction: Fraction = 0.5
    validation_fraction: Fraction = 0.1
    test_fraction: Fraction = 0.2
    max_tokens: Annotated[int, Field(ge=2)] = 128
    long_texts: Literal["error", "truncate", "drop"] = "error"

    # activations
    layer: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    layers: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] | Literal["all"] = (
        "all"
    )
    shards: Count = 1
    batch_tokens: Count = 2048
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"

    # probes
    probe_folds: Annotated[int, Field(ge=2)] = 5
    probe_regularisation: Annotated[list[Positive], Field(min_length=1)] = [
        1e-4,
        1e-3,
        1e-2,
        0.1,
        1.0,
    ]

    # methods
    methods: Annotated[list[Literal[METHODS]], Field(min_length=1)] = list(METHODS)
    strengths: Annotated[list[Positive], Field(min_length=1)] = [0.1, 0.25, 0.5, 1.0, 2.0]
    topk: Count = 10
    qp_tau: Annotated[list[Positive], Field(min_length=1)] = [0.5, 2.0, 4.0, 8.0]
    qp_lambda: Annotated[list[Positive], Field(min_length=1)] = [1.0]
    socp_tau: Annotated[list[Positive], Field(min_length=1)] = [0.5]
    socp_epsilon: Annotated[list[Positive], Field(min_length=1)] = [1.0, 3.0, 5.0, 10.0, 20.0]

    # variants of the programs
    variants: Annotated[list[Literal[VARIANTS]], Field(min_length=1)] = list(VARIANTS)
    variant_rows: Count = 50
    variant_tau: Positive = 0.5
    variant_lambda: Annotated[list[Positive], Field(min_length=1)] = [1.0]
    variant_epsilon: Annotated[list[Positive], Field(min_length=1)] = [5.0]
    cone_solver: Literal["clarabel", "scs"] = "clarabel"
    prefilter_features: Annotated[int, Field(ge=2)] = 2000
    box_factor: Positive = 1.0
    subspace_components: Count = 50
    subspace_directions: Count = 5

    # generation
    n_prompts: Count = 50
    n_validation_prompts: Annotated[int, Field(ge=0)] = 20
    new_tokens: Count = 100
    temperature: Positive = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.9
    positions: Literal["last", "all"] = "last"
    batch_prompts: Count = 50

    # metrics
    bootstrap_resamples: Count = 2000
    selection_kl: Positive = 1.0

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
    def _subspace_fits(self) -> "Settings":
        if self.subspace_directions > self.subspace_components:
            raise ValueError(
                "subspace_directions must not exceed subspace_components, of which it keeps some"
            )
        return self

    @field_validator(
        "methods",
        "strengths",
        "qp_tau",
        "qp_lambda",
        "socp_tau",
        "socp_epsilon",
        "variants",
        "variant_lambda",
        "variant_epsilon",
    )
    @classmethod
    def _distinct(cls, values: list) -> list:
        if len(set(values)) < len(values):
            raise ValueError("has an entry twice")
        return values

    @field_validator("methods")
    @classmethod
    def _has_baseline(cls, values: list) -> list:
        if "no_steering" not in values:
            raise ValueError("must contain no_steering: every other method is compared with it")
        return values

    @field_validator("variants")
    @classmethod
    def _has_path(cls, values: list) -> list:
        if "path" not in values:
            raise ValueError("must contain path: every other variant is compared with it")
        return values


class SAESource(Closed):
    """A sae-lens SAE per layer, by release and id or by directory; ``{layer}`` is filled in."""

    release: str | None = None
    id: str | None = None
    path: str | None = None

    @model_validator(mode="after")
    def _one_source(self) -> "SAESource":
        if (self.path is None) == (self.release is None) or (self.release is None) != (
            self.id is None
        ):
            raise ValueError("give either release and id, or path")
        template = str(self.path or self.id)
        try:
            filled = template.format(layer=0) != template.format(layer=1)
        except (KeyError, IndexError, AttributeError, ValueError) as error:
            raise ValueError(f"{template!r} may contain {{layer}} and no other braces") from error
        if not filled:
            raise ValueError("the id or path must contain {layer}")
        return self


class Model(Closed):
    """A Hugging Face causal language model, by hub id or local directory, with its SAEs."""

    id: str
    revision: str = "main"
    sae: SAESource
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    settings: dict = {}


class Classifier(Closed):
    """What judges a completion: a text classifier and its target label, or a lexicon file."""

    model: str | None = None
    revision: str = "main"
    label: str | None = None
    lexicon: str | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> "Classifier":
        if (self.lexicon is None) == (self.model is None) or (self.model is None) != (
            self.label is None
        ):
            raise ValueError("give either model and label (the label of class 1), or lexicon")
        return self


class Task(Closed):
    """A labelled dataset, the concept texts and the judge of completions.

    Either ``text`` and ``label`` name two columns (with ``threshold``, a score is cut into two
    classes), or ``question``, ``positive`` and ``negative`` name the columns of question–answer
    pairs: "question positive" has label 1, "question negative" label 0, one group a question.
    """

    dataset: str
    revision: str = "main"
    subset: str | None = None
    split: str = "train"
    text: str | None = None
    label: str | None = None
    threshold: Annotated[float, Field(allow_inf_nan=False)] | None = None
    group: str | None = None
    question: str | None = None
    positive: str | None = None
    negative: str | None = None
    concept: str
    target_class: Literal[0, 1] = 1
    classifier: Classifier | None = None
    settings: dict = {}

    @model_validator(mode="after")
    def _one_form(self) -> "Task":
        pair = (self.question, self.positive, self.negative)
        flat = (self.text, self.label)
        if not ((all(pair) and not any(flat)) or (all(flat) and not any(pair))):
            raise ValueError("give either text and label, or question, positive and negative")
        if any(pair) and (self.group or self.threshold is not None):
            raise ValueError("group and threshold belong to text and label")
        return self


class ExperimentEntry(Closed):
    """A model and a task, by their names, with settings of their own."""

    model: Name
    task: Name
    settings: dict = {}


class DemoWorld(Closed):
    """Sizes of the world that the demo writes and trains for itself."""

    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    documents: Count = 30000
    labelled: Count = 1000
    d_model: Count = 64
    n_layers: Count = 4
    training_steps: Count = 1600
    d_sae: Count = 256
    sae_samples: Count = 120000


class Config(Closed):
    """The whole of ``config.yaml`` without the settings given at top level."""

    settings: dict = {}
    models: dict[Name, Model]
    tasks: dict[Name, Task]
    experiments: dict[Name, ExperimentEntry]
    demo_world: DemoWorld = DemoWorld()
    corrsteer: dict = {}  # its schema is in config/corrsteer.py
