"""Build the table of texts: the sampled, split dataset and the concept texts."""

import logging
from collections.abc import Callable, Sequence

import pandas as pd

from steering_core.config.settings import Settings
from steering_core.config.task import Task
from steering_core.data.concept import Concept, check_prompts
from steering_core.data.datasets import labelled_rows
from steering_core.data.examples import PROMPT_SPLITS, SCHEMA
from steering_core.data.splits import assign_splits, subsample
from steering_core.errors import DataError, clipped

log = logging.getLogger(__name__)


def build_examples(
    table: pd.DataFrame,
    task: Task,
    concept: Concept,
    settings: Settings,
    count_tokens: Callable[[Sequence[str]], list[int]],
    context: int | None = None,
) -> pd.DataFrame:
    """Return the rows of ``SCHEMA``: the sampled, split dataset and the concept texts.

    ``count_tokens`` gives the length of each text as the model will read it, BOS included;
    ``context`` is how many positions the model has, if prompts are to be continued.

    Raises:
        DataError: if texts are too long for ``max_tokens`` and ``long_texts`` is ``error``, if one
            has no token, if a prompt and its continuation exceed ``context``, or if the dataset
            does not fit the task.
        ConfigError: if fewer prompts are written than the settings ask for.

    """
    rows = labelled_rows(table, task)
    rows["n_tokens"] = count_tokens(rows["text"].tolist())
    if settings.long_texts == "drop":
        rows = rows[rows["n_tokens"] <= settings.max_tokens].reset_index(drop=True)
        if rows["label"].nunique() < 2:
            raise DataError(f"max_tokens: {settings.max_tokens} drops every row of a class.")
    available = rows["label"].value_counts()
    rows = subsample(rows, settings.rows_per_class, settings.seed)
    rows["split"] = assign_splits(rows, settings, available)
    texts = concept_rows(concept, settings)
    texts["n_tokens"] = count_tokens(texts["text"].tolist())
    rows = pd.concat([rows, texts], ignore_index=True)
    if not rows["n_tokens"].all():
        empty = rows.loc[rows["n_tokens"].idxmin()]
        raise DataError(f"{empty['example_id']} has no tokens: {clipped(empty['text'])}")
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
    if context is not None:
        _check_room(rows[rows["split"].isin(PROMPT_SPLITS)], settings.new_tokens, context)
    rows["label"] = rows["label"].astype("Int8")
    return rows[SCHEMA.names]


def _check_room(prompts: pd.DataFrame, new_tokens: int, context: int) -> None:
    longest = prompts.loc[prompts["n_tokens"].idxmax()]
    if longest["n_tokens"] + new_tokens > context:
        raise DataError(
            f"new_tokens: {longest['example_id']} has {longest['n_tokens']} tokens and the model "
            f"{context} positions, which leaves no room for {new_tokens} more: lower new_tokens or "
            "shorten the prompt."
        )


def concept_rows(concept: Concept, settings: Settings) -> pd.DataFrame:
    """Return contrastive pairs, persona texts and the first prompts of both kinds as rows."""
    check_prompts(concept, settings)
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
