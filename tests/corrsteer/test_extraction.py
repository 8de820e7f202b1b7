"""Letters and numbers in answers."""

from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steering_core.corrsteer.success import letter, number


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
        ("#### 8{,}000", "8000"),
        (r"#### \(8\,000\)", "8000"),
        (r"#### 8\;000.", "8000"),
        ("#### 8\u202f000", "8000"),
        ("#### 1,00,000", "100000"),
        ("#### 1/2", "0.5"),
        ("#### -$1/2$", "-0.5"),
        (r"#### $\frac{3}{4}$ of it", "0.75"),
        ("#### 1 1/2 cups", "1.5"),
        (r"#### \$25", "25"),
        (r"#### \boxed{\$18}", "18"),
        (r"#### $\$25$", "25"),
        ("#### US$18", "18"),
        ("#### USD 18", "18"),
        ("#### Rs. 500", "500"),
        ("#### ₹500", "500"),
        ("#### R$ 5", "5"),
        ("#### –5", "-5"),
        ("#### 1e3", "1000"),
        ("####\r\n72", "72"),
        ("#### 72<<72>>", "72"),
        ("#### 10 + 5 = 15", "15"),
        ("#### 10 apples + 5 apples = 15 apples", "15"),
        ("#### 5 * (3 + 2) = 25", "25"),
        (r"#### 10 + 5 = \boxed{15}", "15"),
        ("#### 10 - 15 = -5", "-5"),
        ("#### 2 * 3 = 6 = six", "6"),
        ("#### Total cost = $15.", "15"),
        ("#### 15 (since 3 * 5 = 16)", "15"),
        ("#### 15, as 10 + 6 = 16", "15"),
        ("#### 2 100-dollar bills", "2"),
        ("#### Step 1: 3 * 5 = 15\n\n#### 20", "20"),
        ("#### The final answer is: **72**", "72"),
        ("Q1: 50 units\nQ2: 60 units\n#### 110", "110"),
        ("**Q1:** 50 units\n\n**Q2:** $60\nAnswer: 110\n#### 110", "110"),
        ("Step 1.\nProblem: find the total.\n#### 72", "72"),
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
        "Sure.\n\nQuestion 2:\nWhat is next?\n#### 7",
        "Sure.\n\nProblem: Find it.\nThen double it.\nA: 3\n#### 7",
        "#### 5,6",
        "#### 1,0000",
        "#### 1.080,50",
        "#### 1/0",
        "#### 0/0",
        "#### 1/2/2020",
        "#### 10:30",
        "#### 1e9999",
        "#### x = y",
        "#### Step 1: 3 * 5 = 15",
    ],
)
def test_no_number(text):
    assert number(text) is None


@given(st.integers(-(10**12), 10**12))
def test_thousands_separators_do_not_matter(value):
    assert number(f"#### {value:,}") == value == number(f"#### {value}.00")


@given(st.integers(0, 10**9), st.sampled_from([",", "{,}", r"\,", "\u202f", "\u00a0", " "]))
def test_any_mark_may_group_thousands(value, mark):
    assert number(f"#### {value:,}".replace(",", mark)) == value


@given(st.integers(-999, 999), st.integers(1, 999))
def test_a_fraction_is_the_quotient(over, under):
    assert number(f"#### {over}/{under}") == Decimal(over) / Decimal(under)


@given(st.lists(st.integers(1, 999), min_size=1, max_size=4))
def test_the_right_side_of_an_equation_counts(terms):
    assert number(f"#### {' + '.join(map(str, terms))} = {sum(terms)}") == sum(terms)


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
        ("The answer is B", "B"),
        ("the correct answer is (B)", "B"),
        ("So, the best option is **B**.", "B"),
        ("**Answer:** The correct answer is B", "B"),
        ("Option B", "B"),
        ("B (Paris)", "B"),
        ("B because it is.", "B"),
        ("B is the correct answer.", "B"),
        ("Answer：B", "B"),
        ("B\r\n", "B"),
        ("B, I think", "B"),
        (r"$\boxed{\text{(B)}}$", "B"),
        ("If the answer is B, then", None),
        ("The answer is not B", None),
        ("The answer is A cat", None),
        ("(A) or (B)", None),
        ("A) or B)", None),
        ("(A)(B)", None),
        ("A & B", None),
        ("A is too small", None),
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
        ("The answer is B", "B"),
        ("Let us see. The answer is (B).", "B"),
        ("If the answer is A, x is 3. So the answer is B.", "B"),
        ("I think that the answer is C.", "C"),
        ("A wrong answer is A. Another option is C. The answer is D.", "D"),
        ("The answer is A. No.\nAnswer: B", "B"),
        ("Answer: C (Paris)", "C"),
        ("Answer: B because A is too small", "B"),
        ("Answer: option B", "B"),
        ("Answer: (B) or (C)", None),
        ("Answer: A) or B)", None),
        ("Answer: option A or option B", None),
        ("Answer: A, I", None),
        ("Answer: B, I think", "B"),
        ("Answer: I think", None),
        ("Answer: I", "I"),
        ("Q1: 50\nQ2: 60\nAnswer: B", "B"),
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


PAGE = (Path(__file__).parents[2] / "docs" / "corrsteer.md").read_text(encoding="utf-8")


def _documented(name):
    """Return the rows of a table of the page, with line breaks where it writes ⏎."""
    table = PAGE.split(f"<!-- {name}: begin -->")[1].split(f"<!-- {name}: end -->")[0]
    rows = [line.strip("|").split("|") for line in table.strip().splitlines()[2:]]
    return [
        (text.strip().strip("`").replace("⏎", "\n"), *(cell.strip() for cell in cells))
        for text, *cells in rows
    ]


def test_letters_are_read_as_documented():
    rows = _documented("letters")
    assert len(rows) > 30
    for text, direct, reasoned in rows:
        assert (letter(text, FOUR) or "none") == direct, text
        assert (letter(text, FOUR, tagged=True) or "none") == reasoned, text


def test_numbers_are_read_as_documented():
    rows = _documented("numbers")
    assert len(rows) > 40
    for text, value in rows:
        assert number(text) == (None if value == "none" else Decimal(value)), text


@given(st.text(), st.booleans())
def test_any_text_has_an_answer_or_none(text, tagged):
    assert letter(text, FOUR, tagged=tagged) in (None, *FOUR)
    number(text)


SIGNS = st.sampled_from([*"0123456789", *"#=,./:;-+$({[]})*_ \\\nAB", "####", "answer is", "Q1:"])


@given(st.lists(SIGNS, max_size=60).map("".join), st.booleans())
def test_any_answer_is_read_or_none(text, tagged):
    assert letter(text, FOUR, tagged=tagged) in (None, *FOUR)
    found = number(f"#### {text}")
    assert found is None or found.is_finite()
