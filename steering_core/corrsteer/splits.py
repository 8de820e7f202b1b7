"""Splits of a task, made once from the run's seed and used by selection and evaluation alike."""

import logging

import numpy as np
import pandas as pd

from steering_core.config.corrsteer import CorrSteerSettings
from steering_core.corrsteer.item import Source
from steering_core.errors import DataError

log = logging.getLogger(__name__)

SPLITS = ("train", "validation", "test", "shot")

#: With which the published code draws the test rows, whatever the run's seed.
PUBLISHED_SEED = 42


def assign_splits(
    items: pd.DataFrame,
    source: Source,
    settings: CorrSteerSettings,
    seed: int,
    *,
    published: bool = False,
) -> pd.DataFrame:
    """Return the items that are used, with a column ``split``, training rows in random order.

    Where the dataset has a split of its own it is kept; else the task splits itself: shuffled,
    ``own_test_fraction`` of the prompts are test, then ``validation_share`` of the rest are
    validation. A prompt is only ever in one split: a duplicate goes with its first occurrence,
    and training or validation rows whose prompt is also a test prompt are left out. The last
    ``few_shot`` training rows become the examples in the prompt (split ``shot``).

    With ``published`` the test rows of a task that splits itself are those of seed 42, as the
    published code has them; most of the training rows of another seed are among them.

    Raises:
        DataError: if a split would be empty.
    """
    rows = _assigned(items, source, settings, seed)
    if published and source.test is None:
        rows = _tested_as_published(rows, _assigned(items, source, settings, PUBLISHED_SEED))
    limits = {
        "train": settings.train_rows,
        "validation": settings.validation_rows,
        "test": settings.test_rows,
    }
    parts = {
        name: rows[rows["split"] == name].head(len(rows) if limit is None else limit)
        for name, limit in limits.items()
    }
    n_train = len(parts["train"]) - settings.few_shot
    for name, n in (*((k, len(v)) for k, v in parts.items()), ("train", n_train)):
        if n < 1:
            raise DataError(f"too few rows: the {name} split of {len(items)} rows is empty.")
    parts["shot"] = parts["train"].iloc[n_train:].assign(split="shot")
    parts["train"] = parts["train"].iloc[:n_train]
    parts["test"] = parts["test"].sort_index()
    return pd.concat([parts[name] for name in SPLITS], ignore_index=True)


def _assigned(
    items: pd.DataFrame, source: Source, settings: CorrSteerSettings, seed: int
) -> pd.DataFrame:
    """Return the items in random order with their splits, whole; those of none are left out."""
    rng = np.random.default_rng([seed, 4])
    shuffled = items.iloc[rng.permutation(len(items))]
    if source.test is None:
        split = _own(shuffled, settings)
    else:
        split = _given(shuffled, source, settings)
    rows = shuffled.assign(split=split)
    return rows[rows["split"] != ""]


def _tested_as_published(mine: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with the test rows of the published seed; a row may be in two splits."""
    test = published[published["split"] == "test"]
    used = mine[mine["split"] != "test"]
    n_seen = int(used["prompt"].isin(test["prompt"]).sum())
    if n_seen:
        log.warning(
            "published_split: %d of %d training and validation rows are test rows too: what is "
            "measured is not what the method does on new ones.",
            n_seen,
            len(used),
        )
    return pd.concat([used, test])


def _own(rows: pd.DataFrame, settings: CorrSteerSettings) -> np.ndarray:
    code, prompts = pd.factorize(rows["prompt"])
    n_test = round(settings.own_test_fraction * len(prompts))
    n_validation = round(settings.validation_share * (len(prompts) - n_test))
    cuts = [n_test, n_test + n_validation]
    return np.array(["test", "validation", "train"])[np.searchsorted(cuts, code, side="right")]


def _given(rows: pd.DataFrame, source: Source, settings: CorrSteerSettings) -> np.ndarray:
    origin = rows["source_split"].to_numpy()
    split = np.where(origin == source.train, "train", "").astype(object)
    split[origin == source.test] = "test"
    if source.validation is not None:
        split[origin == source.validation] = "validation"
    else:
        code, prompts = pd.factorize(rows["prompt"].where(split == "train", ""))
        n_validation = round(settings.validation_share * len(prompts))
        split[(split == "train") & (code < n_validation)] = "validation"
    tested = set(rows.loc[split == "test", "prompt"])
    split[(split != "test") & rows["prompt"].isin(tested).to_numpy()] = ""
    validated = set(rows.loc[split == "validation", "prompt"])
    split[(split == "train") & rows["prompt"].isin(validated).to_numpy()] = ""
    return split
