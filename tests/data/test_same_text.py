"""Which texts count as the same."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steering_core.data.same_text import joined_groups, normal_form


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("The movie was", "the  MOVIE\twas\n"),
        ("e\u0301", "\u00e9"),
        ("ｗｉｄｅ", "wide"),
        ("Straße", "STRASSE"),
        ("a\u00a0b", "a b"),
    ],
)
def test_the_same(one: str, other: str):
    assert normal_form(one) == normal_form(other)


@pytest.mark.parametrize(("one", "other"), [("a b", "ab"), ("a.", "a"), ("1", "2"), ("é", "e")])
def test_not_the_same(one: str, other: str):
    assert normal_form(one) != normal_form(other)


@given(st.lists(st.tuples(st.sampled_from("xyz"), st.sampled_from(["a", "A ", "b", "c", " "]))))
def test_groups_are_the_connected_parts(rows: list[tuple[str, str]]):
    table = pd.DataFrame(rows, columns=["group", "text"], dtype=object)
    found = joined_groups(table["group"], table["text"]).tolist()
    # The same by joining two groups at a time until nothing changes.
    want = table["group"].tolist()
    for _ in rows:
        for i, (_, text) in enumerate(rows):
            for j, (_, other) in enumerate(rows):
                if text.strip() and normal_form(text) == normal_form(other):
                    first, second = sorted((want[i], want[j]), key=want.index)
                    want = [first if group == second else group for group in want]
    assert found == want
