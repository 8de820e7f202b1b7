"""Splits of a task, made once from the run's seed and used by selection and evaluation alike."""

import logging

import numpy as np
import pandas as pd

from steering_core.config.corrsteer import CorrSteerSettings
from steering_core.corrsteer.tasks import Source
from steering_core.data.same_text import normal_forms
from steering_core.errors import DataError

log = logging.getLogger(__name__)

SPLITS = ("train", "validation", "test", "shot")

_LEFT_OUT = "left out of "

#: With which the published code draws the test rows, whatever the run's seed.
PUBLISHED_SEED = 42


def assign_splits(
    items: pd.DataFrame,
    source: Source,
    settings: CorrSteerSettings,
    seed: int,
    *,
    published: bool = False,
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Return the items that are used, with a column ``split``, training rows in random order.

    Also returned is how many rows were left out because their prompt is in another split too.

    Where the dataset has a split of its own it is kept; else the task splits itself: shuffled,
    ``own_test_fraction`` of the prompts are test, then ``validation_share`` of the rest are
    validation. A prompt is only ever in one split, compared in its normal form
    (:func:`steering_core.data.same_text.normal_form`): a duplicate goes with its first occurrence,
    and training or validation rows whose prompt is also a test prompt are left out. The last
    ``few_shot`` training rows become the examples in the prompt (split ``shot``); they are all
    different, and no other row has the prompt of one.

    With ``published`` the test rows of a task that splits itself are those of seed 42, as the
    published code has them; most of the training rows of another seed are among them.

    Raises:
        DataError: if a split would be empty.
    """
    rows = _assigned(items, source, settings, seed)
    if published and source.test is None:
        rows = _tested_as_published(rows, _assigned(items, source, settings, PUBLISHED_SEED))
    dropped = {
        f"{name}_also_in_another_split": int(n)
        for name, n in rows.loc[rows["split"].str.startswith(_LEFT_OUT), "split"]
        .str.removeprefix(_LEFT_OUT)
        .value_counts()
        .sort_index()
        .items()
    }
    limits = {
        "train": settings.train_rows,
        "validation": settings.validation_rows,
        "test": settings.test_rows,
    }
    parts = {
        name: rows[rows["split"] == name].head(len(rows) if limit is None else limit)
        for name, limit in limits.items()
    }
    shots = _shots(parts, settings.few_shot)
    shown = parts["train"]["form"].isin(shots["form"])
    again = int(shown.sum()) - len(shots)
    if again:
        dropped["train_also_an_example"] = again
    parts["train"] = parts["train"][~shown]
    for name, part in parts.items():
        if part.empty or len(shots) < settings.few_shot:
            raise DataError(f"too few rows: the {name} split of {len(items)} rows is empty.")
    parts["shot"] = shots.assign(split="shot")
    parts["test"] = parts["test"].sort_index()
    if dropped:
        log.warning(
            "rows left out because their prompt is in another split too: %s",
            ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in dropped.items()),
        )
    rows = pd.concat([parts[name] for name in SPLITS], ignore_index=True)
    return rows.drop(columns="form"), dropped


def _shots(parts: dict[str, pd.DataFrame], n: int) -> pd.DataFrame:
    """Return the last ``n`` different training rows that are asked in no other split."""
    asked = pd.concat([parts["validation"], parts["test"]])["form"]
    free = parts["train"][~parts["train"]["form"].isin(asked)].drop_duplicates("form", keep="last")
    return free.iloc[len(free) - min(n, len(free)) :]


def _assigned(
    items: pd.DataFrame, source: Source, settings: CorrSteerSettings, seed: int
) -> pd.DataFrame:
    """Return the items in random order with their splits, whole, and their prompts' normal forms.

    Rows of a split that is not read are not among them.
    """
    rng = np.random.default_rng([seed, 4])
    shuffled = items.iloc[rng.permutation(len(items))]
    shuffled = shuffled.assign(form=normal_forms(shuffled["prompt"]))
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
    n_seen = int(used["form"].isin(test["form"]).sum())
    if n_seen:
        log.warning(
            "published_split: %d of %d training and validation rows are test rows too: what is "
            "measured is not what the method does on new ones.",
            n_seen,
            len(used),
        )
    return pd.concat([used, test])


def _own(rows: pd.DataFrame, settings: CorrSteerSettings) -> np.ndarray:
    code, prompts = pd.factorize(rows["form"])
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
        code, prompts = pd.factorize(rows["form"].where(split == "train", ""))
        n_validation = round(settings.validation_share * len(prompts))
        split[(split == "train") & (code < n_validation)] = "validation"
    tested = set(rows.loc[split == "test", "form"])
    _leave_out(split, (split != "test") & rows["form"].isin(tested).to_numpy())
    validated = set(rows.loc[split == "validation", "form"])
    _leave_out(split, (split == "train") & rows["form"].isin(validated).to_numpy())
    return split


def _leave_out(split: np.ndarray, rows: np.ndarray) -> None:
    """Mark rows of a split as left out of it, in place."""
    marked = rows & (split != "")
    split[marked] = [_LEFT_OUT + name for name in split[marked]]
