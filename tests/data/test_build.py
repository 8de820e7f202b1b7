"""Splits keep groups whole and classes balanced, and depend on nothing but seed and groups."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from steering_core.config.schema import Settings
from steering_core.data.build import SPLITS, assign_splits, subsample
from steering_core.errors import DataError


def table(groups: list[tuple[str, int]]) -> pd.DataFrame:
    rows = pd.DataFrame(groups, columns=["group", "label"])
    rows["text"] = [f"text {i}" for i in range(len(rows))]
    return rows


def singles(n: int) -> pd.DataFrame:
    """``n`` rows of each class, each a group of its own."""
    return table([(f"g{i}", i % 2) for i in range(2 * n)])


def balanced(rows: pd.DataFrame) -> bool:
    counts = rows["label"].value_counts()
    return counts.get(0, 0) == counts.get(1, 0)


# Groups of several rows, of one class or mixed.
group_rows = st.lists(
    st.tuples(st.integers(0, 60).map(str), st.integers(0, 1)), min_size=1, max_size=200
)


@given(st.integers(0, 2**31), st.integers(80, 400), st.integers(0, 5))
def test_a_group_is_never_divided(draw: int, groups: int, seed: int):
    rng = np.random.default_rng(draw)
    sizes = rng.integers(1, 5, groups)
    names = np.repeat([f"g{i}" for i in range(groups)], sizes)
    rows = table(list(zip(names, rng.integers(0, 2, len(names)), strict=True)))
    split = assign_splits(rows, Settings(seed=seed))
    assert set(split) == set(SPLITS)
    assert (split.groupby(rows["group"]).nunique() == 1).all()
    # Strata of a few groups round, so balance and size hold approximately.
    assert abs((split == "train").mean() - 0.5) < 0.2
    assert rows["label"].groupby(split).mean().between(0.1, 0.9).all()


@given(st.integers(60, 300), st.integers(0, 3), st.sampled_from([0.2, 0.35, 0.5]))
def test_fractions_and_balance(n: int, seed: int, train: float):
    settings = Settings(seed=seed, train_fraction=train)
    rows = singles(n)
    count = Counter(zip(assign_splits(rows, settings), rows["label"], strict=True))
    fractions = dict(train=train, validation=0.1, test=0.2, evaluation=1 - train - 0.3)
    for split, fraction in fractions.items():
        for label in (0, 1):
            assert abs(count[split, label] - fraction * n) <= 1 + 1e-9


def test_mixed_groups_keep_the_balance_exactly():
    rows = table([(f"q{i}", label) for i in range(100) for label in (1, 0)])
    split = assign_splits(rows, Settings())
    for name in SPLITS:
        assert balanced(rows[split == name])
        assert (split == name).sum() >= 2


@given(st.integers(0, 1000))
def test_the_order_of_rows_does_not_matter(shuffle: int):
    rows = table([(f"g{i // 3}", i % 2) for i in range(240)])
    order = np.random.default_rng(shuffle).permutation(len(rows))
    expected = assign_splits(rows, Settings())
    found = assign_splits(rows.iloc[order].reset_index(drop=True), Settings())
    assert found.tolist() == expected.iloc[order].tolist()
    kept = set(subsample(rows, 50, seed=0)["text"])
    assert set(subsample(rows.iloc[order].reset_index(drop=True), 50, seed=0)["text"]) == kept


def test_the_seed_decides():
    rows = singles(100)
    one, again, other = (assign_splits(rows, Settings(seed=s)) for s in (1, 1, 2))
    assert one.tolist() == again.tolist()
    assert one.tolist() != other.tolist()
    picks = [set(subsample(rows, 30, seed=s)["text"]) for s in (1, 1, 2)]
    assert picks[0] == picks[1] != picks[2]


@pytest.mark.parametrize("n", [2, 8, 10])
def test_too_few_rows_name_the_split_and_what_to_do(n: int):
    with pytest.raises(DataError, match=r"too few rows: the \w+ split has [012] of class"):
        assign_splits(singles(n), Settings())


def test_a_split_with_a_probe_has_rows_for_its_folds():
    with pytest.raises(DataError, match=r"the evaluation split has 12 of .*needs 20.*or lower"):
        assign_splits(singles(60), Settings(probe_folds=20))


def test_one_class_in_a_single_group_is_too_few():
    rows = table([("all ones", 1)] * 50 + [(f"g{i}", 0) for i in range(50)])
    with pytest.raises(DataError, match=r"of class 1 and needs \d. Raise rows_per_class"):
        assign_splits(rows, Settings())


@given(group_rows, st.integers(1, 40), st.integers(0, 3))
def test_subsample_keeps_whole_groups_and_stays_within_the_share(
    pairs: list[tuple[str, int]], per_class: int, seed: int
):
    rows = table(pairs)
    counts = rows["label"].value_counts()
    assume(len(counts) == 2)
    kept = subsample(rows, per_class, seed)
    share = min(per_class, counts.min())
    left = {label: share - (kept["label"] == label).sum() for label in (0, 1)}
    assert min(left.values()) >= 0
    # Whole groups, in the order of the table.
    assert kept["text"].tolist() == rows.loc[rows["group"].isin(kept["group"]), "text"].tolist()
    # Nothing was left out that had room.
    for _, group in rows[~rows["group"].isin(kept["group"])].groupby("group"):
        assert any((group["label"] == label).sum() > left[label] for label in (0, 1))


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 80))
def test_subsample_of_single_rows_is_exactly_balanced(zeros: int, ones: int, per_class: int):
    rows = table([(f"z{i}", 0) for i in range(zeros)] + [(f"o{i}", 1) for i in range(ones)])
    kept = subsample(rows, per_class, seed=0)
    assert balanced(kept)
    assert len(kept) == 2 * min(zeros, ones, per_class)


def test_subsample_is_not_the_head_of_the_table():
    rows = singles(200)
    kept = subsample(rows, 50, seed=0)
    assert kept["text"].tolist() != rows["text"].head(100).tolist()
