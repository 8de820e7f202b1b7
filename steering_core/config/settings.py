"""The settings of an experiment, with their defaults."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from steering_core.config.closed import Closed, Count, Fraction, Positive
from steering_core.config.methods import BASELINE, METHODS

VARIANTS = ("path", "prefilter", "signed", "box", "subspace", "shared")


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
    cached_positions: Literal["last", "all"] = "last"
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
    qp_lambda: Annotated[list[Positive], Field(min_length=1)] = [0.1, 1.0]
    socp_tau: Annotated[list[Positive], Field(min_length=1)] = [0.5, 4.0]
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
        if BASELINE not in values:
            raise ValueError(f"must contain {BASELINE}: every other method is compared with it")
        return values

    @field_validator("variants")
    @classmethod
    def _has_path(cls, values: list) -> list:
        if "path" not in values:
            raise ValueError("must contain path: every other variant is compared with it")
        return values
