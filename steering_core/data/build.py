"""Build the table of texts: the sampled, split dataset and the concept texts."""

import logging
from collections.abc import Callable, Sequence

import pandas as pd

from steering_core.config.settings import Settings
from steering_core.config.task import Task
from steering_core.data.concept import Concept, check_prompts, texts_by_role
from steering_core.data.datasets import labelled_rows
from steering_core.data.examples import PROMPT_SPLITS, SCHEMA
from steering_core.data.same_text import normal_form, normal_forms
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
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Return the rows of ``SCHEMA``: the sampled, split dataset and the concept texts.

    Also returned is how many rows of the dataset were left out, by reason: those that are too long
    if ``long_texts`` is ``drop``, and those that are also a text of the concept, by its role.

    ``count_tokens`` gives the length of each text as the model will read it, BOS included;
    ``context`` is how many positions the model has, if prompts are to be continued.

    Raises:
        DataError: if texts are too long for ``max_tokens`` and ``long_texts`` is ``error``, if one
            has no token, if a prompt and its continuation exceed ``context``, or if the dataset
            does not fit the task.
        ConfigError: if fewer prompts are written than the settings ask for.

    """
    rows = labelled_rows(table, task)
    rows, dropped = _without_concept_texts(rows, concept, questions=task.question is not None)
    rows["n_tokens"] = count_tokens(rows["text"].tolist())
    if settings.long_texts == "drop":
        long = rows["n_tokens"] > settings.max_tokens
        dropped["too_long"] = int(long.sum())
        if long.any():
            log.warning("%d of %d rows are too long: dropped", long.sum(), len(rows))
        rows = rows[~long].reset_index(drop=True)
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
    return rows[SCHEMA.names], dropped


def _without_concept_texts(
    rows: pd.DataFrame, concept: Concept, *, questions: bool
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Leave out the rows that are also a text of the concept, and count them by its role.

    A prompt must be new to every probe and direction, and a row that is reported must be new to
    the directions that are fitted on the concept's texts. With ``questions`` the groups are
    questions; no prompt may be one of them either.
    """
    role_of: dict[str, str] = {}
    for role, texts in texts_by_role(concept).items():
        for text in texts:
            role_of.setdefault(normal_form(text), role)
    roles = pd.Series([role_of.get(form) for form in normal_forms(rows["text"])], dtype=object)
    if questions:
        asked = pd.Series([role_of.get(form) for form in normal_forms(rows["group"])], dtype=object)
        roles = roles.where(roles.notna(), asked)
    dropped = {role: int(n) for role, n in sorted(roles.value_counts().items())}
    if dropped:
        log.warning(
            "%d rows of the dataset are also texts of the concept and are left out: %s",
            sum(dropped.values()),
            ", ".join(f"{n} as {role.replace('_', ' ')}" for role, n in dropped.items()),
        )
    rows = rows[roles.isna().to_numpy()].reset_index(drop=True)
    if rows["label"].nunique() < 2:
        raise DataError("every row of a class is also a text of the concept file.")
    return rows, dropped


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
