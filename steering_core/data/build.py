"""Build the tables of texts: the examples, and the prompts that are continued.

The examples are the labelled rows, sampled and split, and the concept's texts that a direction is
fitted on. Groups are never divided between splits, and both classes have equal shares in each.
"""

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from steering_core.data.columns import normal_form, normal_forms
from steering_core.data.concept import Concept, concept_rows, prompt_rows, texts_by_role
from steering_core.data.examples import SCHEMA
from steering_core.errors import DataError, clipped

if TYPE_CHECKING:
    from steering_core.config.schema import Settings

log = logging.getLogger(__name__)

#: train fits directions, probes and correlations; validation selects; test is reported;
#: evaluation fits the independent probe and nothing else.
SPLITS = ("train", "validation", "test", "evaluation")


def build_examples(
    rows: pd.DataFrame,
    concept: Concept,
    settings: "Settings",
    count_tokens: Callable[[Sequence[str]], list[int]],
    *,
    questions: bool,
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Return the table of examples, with the columns of ``SCHEMA``, and how many rows were dropped.

    Rows are dropped, and counted by reason, if they are too long and ``long_texts`` is ``drop``, or
    if they are also a text of the concept (the reason is the role of that text).

    Args:
        rows: as :func:`steering_core.data.labelled.labelled_rows` returns them.
        concept: whose texts are added, without the prompts.
        settings: of the experiment.
        count_tokens: returns the length of each text in tokens as the model reads it, with BOS.
        questions: whether the groups of the rows are questions.

    Raises:
        DataError: if texts are too long for ``max_tokens`` and ``long_texts`` is ``error``, if a
            text has no token, or if the rows are too few.

    """
    rows, dropped = _without_concept_texts(rows, concept, questions=questions)
    rows["n_tokens"] = count_tokens(rows["text"].tolist())
    if settings.long_texts == "drop":
        long = rows["n_tokens"] > settings.max_tokens
        dropped["too_long"] = int(long.sum())
        if long.any():
            log.warning("%d of %d rows are too long: dropped", long.sum(), len(rows))
        rows = rows[~long].reset_index(drop=True)
        if rows["label"].nunique() < 2:
            raise DataError(
                f"max_tokens: {settings.max_tokens} drops every row of a class. Raise it, or set "
                "long_texts to truncate."
            )
    available = rows["label"].value_counts()
    rows = subsample(rows, settings.rows_per_class, settings.seed)
    rows["split"] = assign_splits(rows, settings, available)
    texts = concept_rows(concept)
    texts["n_tokens"] = count_tokens(texts["text"].tolist())
    return _within_limits(pd.concat([rows, texts], ignore_index=True), settings), dropped


def build_prompts(
    concept: Concept,
    settings: "Settings",
    count_tokens: Callable[[Sequence[str]], list[int]],
    *,
    new_tokens: int = 0,
    context: int | None = None,
) -> pd.DataFrame:
    """Return the table of the prompts that are continued, with the columns of ``SCHEMA``.

    Args:
        concept: whose prompts are taken, reported ones and those for validation.
        settings: how many of each, and what is done with long texts.
        count_tokens: as :func:`build_examples`.
        new_tokens: that must fit behind each prompt.
        context: positions of the model, if that is to be checked.

    Raises:
        DataError: if a prompt is too long for ``max_tokens`` and ``long_texts`` is not
            ``truncate``, has no token, or exceeds ``context`` with its continuation.
        ConfigError: if fewer prompts are written than the settings ask for.

    """
    rows = prompt_rows(concept, settings)
    rows["n_tokens"] = count_tokens(rows["text"].tolist())
    rows = _within_limits(rows, settings)
    if context is not None:
        _check_room(rows, new_tokens, context)
    return rows


def _within_limits(rows: pd.DataFrame, settings: "Settings") -> pd.DataFrame:
    """Return rows with the columns of ``SCHEMA``; texts above ``max_tokens`` are cut or refused."""
    if not rows["n_tokens"].all():
        empty = rows.loc[rows["n_tokens"].idxmin()]
        raise DataError(
            f"{empty['example_id']} has no tokens: {clipped(empty['text'])}: change or remove "
            "this text."
        )
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


def prompts_among_rows(rows: pd.DataFrame, concept: Concept, *, questions: bool) -> list[str]:
    """Return the prompts of a concept that are also rows of a dataset, sorted.

    :func:`build_examples` leaves these rows out. Every other prompt leaves its table as it is.

    Args:
        rows: columns ``text`` and ``group``.
        concept: whose prompts are looked for, also those that the settings do not ask for.
        questions: whether the groups of the rows are questions.
    """
    there = set(normal_forms(rows["text"]))
    if questions:
        there |= set(normal_forms(rows["group"]))
    prompts = [*concept.prompts, *concept.validation_prompts]
    return sorted(
        text for text, form in zip(prompts, normal_forms(prompts), strict=True) if form in there
    )


def _without_concept_texts(
    rows: pd.DataFrame, concept: Concept, *, questions: bool
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Drop the rows that are also a text of the concept, and count them by the role of that text.

    Otherwise a probe could be fitted on a prompt, and a direction on a row that is reported. With
    ``questions`` the groups are questions, and no prompt may be one of them either.
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
        raise DataError(
            "every row of a class is also a text of the concept file: use a larger dataset, or "
            "write other texts in the concept file."
        )
    return rows, dropped


def _check_room(prompts: pd.DataFrame, new_tokens: int, context: int) -> None:
    longest = prompts.loc[prompts["n_tokens"].idxmax()]
    if longest["n_tokens"] + new_tokens > context:
        raise DataError(
            f"new_tokens: {longest['example_id']} has {longest['n_tokens']} tokens and the model "
            f"{context} positions, which leaves no room for {new_tokens} more: lower new_tokens or "
            "shorten the prompt."
        )


def subsample(rows: pd.DataFrame, per_class: int, seed: int) -> pd.DataFrame:
    """Keep at most ``per_class`` rows of each class, in whole groups.

    The share of a class is the smaller of ``per_class`` and the size of the rarer class. Groups are
    drawn in random order, and a group that would push a class over its share is skipped. Both
    classes get exactly their share where there are enough groups of one row. Kept rows stay in the
    order of ``rows``.
    """
    share = min(per_class, int(rows["label"].value_counts().min()))
    groups = rows.groupby("group", sort=True)["label"].agg(["size", "sum"])
    order = np.random.default_rng(seed).permutation(len(groups))
    left = {0: share, 1: share}
    kept = []
    for name, size, ones in groups.iloc[order].itertuples():
        if ones <= left[1] and size - ones <= left[0]:
            left[1] -= ones
            left[0] -= size - ones
            kept.append(name)
    return rows[rows["group"].isin(kept)].reset_index(drop=True)


def assign_splits(
    rows: pd.DataFrame, settings: "Settings", available: pd.Series | None = None
) -> pd.Series:
    """Return the split of each row; a group is never divided.

    Groups are shuffled among those with as many rows of each label, so every split keeps the class
    balance.

    Args:
        rows: columns ``label`` and ``group``.
        settings: fractions, ``seed`` and ``probe_folds``.
        available: rows of each class before sampling, for the message.

    Raises:
        DataError: if a split has fewer than two rows of a class, or if a split that a probe is
            fitted on has fewer than ``probe_folds``.

    """
    fractions = [settings.train_fraction, settings.validation_fraction, settings.test_fraction]
    cuts = np.cumsum(fractions)
    counts = rows.groupby("group", sort=True)["label"].agg(["size", "sum"])
    rng = np.random.default_rng([settings.seed, 1])
    split_of: dict[str, str] = {}
    for _, stratum in counts.groupby(["size", "sum"], sort=True):
        names = stratum.index.to_numpy()[rng.permutation(len(stratum))]
        # A random offset spreads the rounding of small strata over the splits.
        places = (np.arange(len(names)) + rng.random()) / len(names)
        chosen = np.searchsorted(cuts, places, side="right")
        split_of |= {name: SPLITS[k] for name, k in zip(names, chosen, strict=True)}
    split = rows["group"].map(split_of)
    table = pd.crosstab(split, rows["label"]).reindex(index=SPLITS, columns=[0, 1], fill_value=0)
    wanted = pd.Series(2, index=SPLITS)
    wanted[["train", "evaluation"]] = max(2, settings.probe_folds)  # a probe is fitted on each
    short = table.sub(wanted, axis=0)
    if (short < 0).any(axis=None):
        where, label = short.stack().idxmin()
        there = ""
        if available is not None:
            there = (
                f" The dataset has {available[0]} rows of class 0 and {available[1]} of class 1; "
                f"as many of each are taken, at most {settings.rows_per_class}."
            )
        raise DataError(
            f"too few rows: the {where} split has {table.loc[where, label]} of class {label} and "
            f"needs {wanted[where]}.{there} Raise rows_per_class, use a larger dataset, or lower "
            "probe_folds."
        )
    return split
