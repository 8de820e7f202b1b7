"""The texts written for a concept: prompts, contrastive pairs, personas and neutral queries."""

from itertools import combinations
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from steering_core.config.settings import Settings
from steering_core.config.validation import read_validated
from steering_core.errors import ConfigError


class _Texts(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Pair(_Texts):
    """Two texts that differ in the concept: ``positive`` is class 1."""

    positive: Annotated[str, Field(min_length=1, description="the text of class 1")]
    negative: Annotated[str, Field(min_length=1, description="the text of class 0")]


class Concept(_Texts):
    """A concept file.

    Attributes:
        prompts: openings for generation; seen by no probe and no direction.
        validation_prompts: more of them, on which a strength is selected and nothing reported.
        contrast: minimal pairs for the contrastive direction.
        personas: prefixes put before every query for the RepE direction.
        queries: neutral texts that follow a persona.

    """

    concept: Annotated[str, Field(description="the name of the concept")]
    description: str = ""
    prompts: Annotated[
        list[str],
        Field(min_length=1, description="a list of openings, which are continued and reported"),
    ]
    validation_prompts: list[Annotated[str, Field(min_length=1)]] = []
    contrast: Annotated[
        list[Pair],
        Field(min_length=2, description="a list of pairs of texts, for the contrastive direction"),
    ]
    personas: Annotated[
        Pair, Field(description="a pair of prefixes of every query, for the RepE direction")
    ]
    queries: Annotated[
        list[str],
        Field(min_length=2, description="a list of neutral texts, which follow a persona"),
    ]


def read_concept(path: str | Path) -> Concept:
    """Read a concept file.

    Raises:
        ConfigError: if it is missing or malformed, or if a prompt of either kind is also a prompt
            of the other or a query.

    """
    concept: Concept = read_validated(Concept, path, "concept")
    texts = {
        "prompt": set(concept.prompts),
        "validation prompt": set(concept.validation_prompts),
        "query": set(concept.queries),
    }
    for (a, some), (b, others) in combinations(texts.items(), 2):
        if both := some & others:
            raise ConfigError(f"concept file {path}: both a {a} and a {b}: {min(both)!r}")
    return concept


def check_prompts(concept: Concept, settings: Settings) -> None:
    """Compare the numbers of prompts that the settings ask for with those written.

    Raises:
        ConfigError: if fewer prompts of either kind are written.

    """
    for setting, asked, written, advice in (
        ("n_prompts", settings.n_prompts, concept.prompts, "Write more or lower it."),
        (
            "n_validation_prompts",
            settings.n_validation_prompts,
            concept.validation_prompts,
            "Write more under validation_prompts or lower it; with 0 no strength is selected.",
        ),
    ):
        if asked > len(written):
            raise ConfigError(
                f"{setting}: {asked} are asked for, {concept.concept} has {len(written)}. {advice}"
            )
