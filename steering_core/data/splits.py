"""Balanced subsampling and grouped splits."""

import numpy as np
import pandas as pd

from steering_core.config.settings import Settings
from steering_core.errors import DataError

#: train: directions, probes, correlations. validation: selection. test: reporting.
#: evaluation: the independent probe and nothing else.
SPLITS = ("train", "validation", "test", "evaluation")


def subsample(rows: pd.DataFrame, per_class: int, seed: int) -> pd.DataFrame:
    """Keep at most ``per_class`` rows of each class, as many of one as whole groups allow.

    Groups are drawn in random order; one that would push a class over its share, the smaller of
    ``per_class`` and the rarer class, is passed over. Both classes get exactly their share
    wherever groups of one row fill it up. The order of the kept rows is that of ``rows``.
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
    rows: pd.DataFrame, settings: Settings, available: pd.Series | None = None
) -> pd.Series:
    """Return the split of each row; a group is never divided.

    Groups are shuffled within each make-up of labels, so every split keeps the class balance.

    Args:
        rows: columns ``label`` and ``group``.
        settings: fractions, ``seed`` and ``probe_folds``.
        available: rows of each class before they were sampled, for the message.

    Raises:
        DataError: if a split has fewer than two rows of a class, or one that a probe is fitted on
            fewer than ``probe_folds``.

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
