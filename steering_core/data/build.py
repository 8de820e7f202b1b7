"""Build the table of texts: the sampled, split dataset and the concept texts."""

import logging
from collections.abc import Callable, Sequence

import pandas as pd

from steering_core.config.schema import Settings, Task
from steering_core.data.concept import Concept
from steering_core.data.datasets import labelled_rows
from steering_core.data.examples import SCHEMA
from steering_core.data.splits import assign_splits, subsample
from steering_core.errors import ConfigError, DataError

log = logging.getLogger(__name__)


def build_examples(
    table: pd.DataFrame,
    task: Task,
    concept: Concept,
    settings: Settings,
    count_tokens: Callable[[Sequence[str]], list[int]],
) -> pd.DataFrame:
    """Return the rows of ``SCHEMA``: the sampled, split dataset and the concept texts.

    ``count_tokens`` gives the length of each text as the model will read it, BOS included.

    Raises:
        DataError: if texts are too long for ``max_tokens`` and ``long_texts`` is ``error``, or
            the dataset does not fit the task.
        ConfigError: if fewer prompts are written than the settings ask for.

    """
    rows = labelled_rows(table, task)
    rows["n_tokens"] = count_tokens(rows["text"].tolist())
    if settings.long_texts == "drop":
        rows = rows[rows["n_tokens"] <= settings.max_tokens].reset_index(drop=True)
        if rows["label"].nunique() < 2:
            raise DataError(f"max_tokens: {settings.max_tokens} drops every row of a class.")
    rows = subsample(rows, settings.rows_per_class, settings.seed)
    rows["split"] = assign_splits(rows, settings)
    texts = concept_rows(concept, settings)
    texts["n_tokens"] = count_tokens(texts["text"].tolist())
    rows = pd.concat([rows, texts], ignore_index=True)
    rows["truncated"] = rows["n_tokens"] > settings.max_tokens
    if rows["truncated"].any():
        worst = rows.loc[rows["n_tokens"].idxmax()]
        message = (
            f"{int(rows['truncated'].sum())} texts are longer than max_tokens "
            f"{settings.max_tokens}; the longest, {worst['example_id']}, has {worst['n_tokens']}"
        )
        if settings.long_texts != "truncate":
            raise DataError(f"{message}. Raise max_tokens, or set long_texts to truncate or drop.")
        log.warning("%s: cut at the end", message)
    rows["n_tokens"] = rows["n_tokens"].clip(upper=settings.max_tokens)
    rows["label"] = rows["label"].astype("Int8")
    return rows[SCHEMA.names]


def concept_rows(concept: Concept, settings: Settings) -> pd.DataFrame:
    """Return contrastive pairs, persona texts and the first prompts of both kinds as rows."""
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
    rows: list[tuple[str, str, int | None, str, str]] = []
    for i, pair in enumerate(concept.contrast):
        rows.append((f"contrast:{i}:positive", pair.positive, 1, f"contrast:{i}", "contrast"))
        rows.append((f"contrast:{i}:negative", pair.negative, 0, f"contrast:{i}", "contrast"))
    for i, query in enumerate(concept.queries):
        for label, prefix in ((1, concept.personas.positive), (0, concept.personas.negative)):
            name = "positive" if label else "negative"
            rows.append((f"persona:{i}:{name}", prefix + query, label, f"persona:{i}", "persona"))
    for split, prompts in (
        ("prompt", concept.prompts[: settings.n_prompts]),
        ("validation_prompt", concept.validation_prompts[: settings.n_validation_prompts]),
    ):
        for i, prompt in enumerate(prompts):
            rows.append((f"{split}:{i}", prompt, None, f"{split}:{i}", split))
    return pd.DataFrame(rows, columns=["example_id", "text", "label", "group", "split"])
