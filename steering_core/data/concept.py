"""The texts written for a concept: prompts, contrastive pairs, personas and neutral queries."""

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from steering_core.config.validation import read_validated
from steering_core.data.columns import normal_form, normal_forms
from steering_core.errors import ConfigError, clipped

if TYPE_CHECKING:
    from steering_core.config.schema import Settings


_COLUMNS = ["example_id", "text", "label", "group", "split"]


class _Texts(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Pair(_Texts):
    """Two texts that differ in the concept: ``positive`` is class 1."""

    positive: Annotated[str, Field(min_length=1, description="the text of class 1")]
    negative: Annotated[str, Field(min_length=1, description="the text of class 0")]


class Concept(_Texts):
    """A concept file.

    Attributes:
        prompts: openings for generation; no probe and no direction is fitted on them.
        validation_prompts: more openings, on which a strength is selected; nothing is reported.
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
        ConfigError: if it is missing or malformed, if a prompt of either kind is also another text
            of the file, or if a prompt, query or pair is there twice. Texts are compared in their
            normal form (:func:`steering_core.data.columns.normal_form`).

    """
    concept: Concept = read_validated(Concept, path, "concept")
    if faults := [*_in_two_roles(concept), *_repeated(concept)]:
        raise ConfigError(
            f"concept file {path}: {'; '.join(faults)}. Change or remove these texts."
        ).of(f"concept file {path}: {fault}. Change or remove these texts." for fault in faults)
    return concept


def texts_by_role(concept: Concept) -> dict[str, list[str]]:
    """Return every text that the model reads, by its role; the roles of prompts come first."""
    personas = [concept.personas.positive, concept.personas.negative]
    return {
        "prompt": concept.prompts,
        "validation_prompt": concept.validation_prompts,
        "query": concept.queries,
        "contrast": [text for pair in concept.contrast for text in (pair.positive, pair.negative)],
        "persona": personas,
        "persona_with_query": [prefix + query for prefix in personas for query in concept.queries],
    }


def _in_two_roles(concept: Concept) -> Iterator[str]:
    """Yield a fault where a prompt is also another text: it must be new to all that is fitted."""
    forms = {
        role.replace("_", " "): {normal_form(text): text for text in texts}
        for role, texts in texts_by_role(concept).items()
    }
    for a, b in combinations(forms, 2):
        if a in ("prompt", "validation prompt"):
            both = [text for form, text in forms[a].items() if form in forms[b]]
            if both:
                yield f"both a {a} and a {b}: {', '.join(map(clipped, both))}"


def _repeated(concept: Concept) -> Iterator[str]:
    """Yield a fault where a text is there twice, or the texts of a pair are the same."""
    named = {
        "prompts": concept.prompts,
        "validation prompts": concept.validation_prompts,
        "queries": concept.queries,
    }
    for name, texts in named.items():
        forms = normal_forms(texts)
        twice = {
            form: text for text, form in zip(texts, forms, strict=True) if forms.count(form) > 1
        }
        if twice:
            yield f"twice among the {name}: {', '.join(map(clipped, twice.values()))}"
    pairs = [(normal_form(pair.positive), normal_form(pair.negative)) for pair in concept.contrast]
    for i, (pair, forms) in enumerate(zip(concept.contrast, pairs, strict=True)):
        if forms[0] == forms[1]:
            yield f"the texts of contrast {i} are the same: {clipped(pair.positive)}"
        elif forms in pairs[:i]:
            yield f"contrast {i} repeats contrast {pairs.index(forms)}: {clipped(pair.positive)}"
    both = {positive for positive, _ in pairs} & {negative for _, negative in pairs}
    both -= {positive for positive, negative in pairs if positive == negative}
    if both:
        named = ", ".join(map(clipped, sorted(both)))
        yield f"both a positive and a negative text of contrast: {named}"


def check_prompts(concept: Concept, settings: "Settings") -> None:
    """Make sure that the concept has as many prompts as the settings ask for.

    Raises:
        ConfigError: if fewer prompts of either kind are written.

    """
    faults = [
        f"{setting}: {asked} are asked for, {concept.concept} has {len(written)}. {advice}"
        for setting, asked, written, advice in (
            ("n_prompts", settings.n_prompts, concept.prompts, "Write more or lower it."),
            (
                "n_validation_prompts",
                settings.n_validation_prompts,
                concept.validation_prompts,
                "Write more under validation_prompts or lower it; with 0 no strength is selected.",
            ),
        )
        if asked > len(written)
    ]
    if faults:
        raise ConfigError(" ".join(faults)).of(faults)


def concept_rows(concept: Concept) -> pd.DataFrame:
    """Return the texts of a concept that a direction is fitted on: pairs, personas with queries.

    Columns: ``example_id, text, label, group, split``.
    """
    rows: list[tuple[str, str, int, str, str]] = []
    for i, pair in enumerate(concept.contrast):
        rows.append((f"contrast:{i}:positive", pair.positive, 1, f"contrast:{i}", "contrast"))
        rows.append((f"contrast:{i}:negative", pair.negative, 0, f"contrast:{i}", "contrast"))
    for i, query in enumerate(concept.queries):
        for label, prefix in ((1, concept.personas.positive), (0, concept.personas.negative)):
            name = "positive" if label else "negative"
            rows.append((f"persona:{i}:{name}", prefix + query, label, f"persona:{i}", "persona"))
    return pd.DataFrame(rows, columns=_COLUMNS)


def prompt_rows(concept: Concept, settings: "Settings") -> pd.DataFrame:
    """Return the requested prompts of a concept as rows, with the same columns; no label.

    Raises:
        ConfigError: as :func:`check_prompts`.
    """
    check_prompts(concept, settings)
    rows = [
        (f"{split}:{i}", prompt, None, f"{split}:{i}", split)
        for split, prompts in (
            ("prompt", concept.prompts[: settings.n_prompts]),
            ("validation_prompt", concept.validation_prompts[: settings.n_validation_prompts]),
        )
        for i, prompt in enumerate(prompts)
    ]
    return pd.DataFrame(rows, columns=_COLUMNS)
