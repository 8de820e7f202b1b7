"""Letters and numbers in answers."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steering_core.corrsteer.extraction import letter, number


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("so 5\n#### 1,080", "1080"),
        ("#### 72.00", "72"),
        ("#### 72", "72.00"),
        ("#### $1,234,567.50", "1234567.5"),
        ("#### -3", "-3"),
        ("#### 5.\n\nQ: what is next?\nA: #### 7", "5"),
        ("####18,", "18"),
        ("#### $-4.5", "-4.5"),
        ("#### .5", "0.5"),
        ("#### **72**", "72"),
        ("**#### 72**", "72"),
        ("#### __1,080__ eggs", "1080"),
        (r"#### \boxed{72}", "72"),
        (r"#### $\boxed{-72.5}$", "-72.5"),
        (r"#### \(72\)", "72"),
        ("#### €72", "72"),
        ("#### £ 1,080.50.", "1080.5"),
        ("#### -$5", "-5"),
        ("#### −3", "-3"),
        ("#### [72]", "72"),
        ("#### +72", "72"),
        ("####\n72", "72"),
        ("#### 72%", "72"),
    ],
)
def test_number_after_mark(text, value):
    assert number(text) == Decimal(value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "72",
        "the answer is 72",
        "#### many",
        "### 72",
        "#### about 72",
        "#### --5",
        "I do not know.\n\nQ: next?\nA: 3\n#### 7",
        "Sure.\n\n**Question 2:** next?\n#### 7",
    ],
)
def test_no_number(text):
    assert number(text) is None


@given(st.integers(-(10**12), 10**12))
def test_thousands_separators_do_not_matter(value):
    assert number(f"#### {value:,}") == value == number(f"#### {value}.00")


FOUR = ["A", "B", "C", "D"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" B", "B"),
        ("B\n", "B"),
        ("B.", "B"),
        ("B)", "B"),
        ("(B)", "B"),
        ("(B) Paris", "B"),
        ("[B]", "B"),
        ("**B**", "B"),
        ("**B. Paris**", "B"),
        ('"B"', "B"),
        (" B\n\nBecause A is wrong.", "B"),
        ("B. Paris", "B"),
        ("B: Paris", "B"),
        ("B - Paris", "B"),
        ("B, because it is.", "B"),
        ("Answer: B", "B"),
        ("**Answer:** B", "B"),
        (r"$\boxed{B}$", "B"),
        ("B\n\nQuestion: next\nAnswer: C", "B"),
        ("E", None),
        ("", None),
        ("AB", None),
        ("b", None),
        ("A cat", None),
        ("I believe B", None),
        ("A and B", None),
        ("A, B, C, or D", None),
        ("(A), (B)", None),
        ("A/B", None),
        ("A.D. 70", None),
        ("A's", None),
        ("A-frame", None),
        ("Paris\nB", None),
        ("Because of C.", None),
    ],
)
def test_a_direct_answer_begins_with_the_letter_alone(text, expected):
    assert letter(text, FOUR) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Answer: B", "B"),
        ("Answer:\nB", "B"),
        ("Answer:\n\n(B)", "B"),
        ("Answer: **B**", "B"),
        ("**Answer:** C", "C"),
        ("**Answer**: C", "C"),
        ("**Answer: C**", "C"),
        ("__Answer:__ C", "C"),
        ("Thus the final answer: C.", "C"),
        (r"Answer: $\boxed{C}$", "C"),
        (r"Answer: \boxed{\text{C}}", "C"),
        ("Answer: B. Because", "B"),
        ("Answer: B\nQ: next", "B"),
        ("It is so. Answer: B\n\nQuestion: next\nA. x\nB. y\nAnswer: A", "B"),
        ("Answer: B\n\nWho was it?\nA. x\nB. y\nAnswer: A", "B"),
        ("Let us see.\n\nQuestion: next\nAnswer: A", None),
        ("Let us see.\n\n**Q2.** next\nAnswer: A", None),
        ("x\nA. y\nChoose one of the following options only: A, or B\nAnswer: A", None),
        ("Question: this one\nSo it is. Answer: A", "A"),
        ("A. 5 is too small, B is not.\nAnswer: B", "B"),
        (" B\n\nBecause it is.\n\nQuestion: next\nAnswer: C", "B"),
        ("First Answer: A? No. Answer: (C) because. Answer: Z", "C"),
        ("Answer: Z\nAnswer: C", "C"),
        (" A", "A"),
        ("Answer: I believe it is B", None),
        ("Answer: A cat", None),
        ("Answer: A, B, or C", None),
        ("The answer is B", None),
        ("Answers: B", None),
        ("", None),
    ],
)
def test_the_first_tagged_letter_counts(text, expected):
    assert letter(text, list("ABCDEFGHIJ"), tagged=True) == expected


def test_options_may_have_any_name():
    assert letter("w10 w3", ["w1", "w10"]) is None and letter(" w10\nw3", ["w1", "w10"]) == "w10"
    assert letter("Answer: yes.", ["no", "yes"], tagged=True) == "yes"
    assert letter("", []) is None


@given(st.text(), st.booleans())
def test_any_text_has_an_answer_or_none(text, tagged):
    assert letter(text, FOUR, tagged=tagged) in (None, *FOUR)
    number(text)
