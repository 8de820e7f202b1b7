"""The concept files that ship with the project are complete, distinct and clean."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

CONCEPTS = Path(__file__).resolve().parents[2] / "resources" / "concepts"
FILES = sorted(CONCEPTS.glob("*.yaml"))
KEYS = [
    "concept",
    "description",
    "prompts",
    "validation_prompts",
    "contrast",
    "personas",
    "queries",
]
SIDES = ["positive", "negative"]
PROMPT_WORDS = range(3, 9)
NEGATIONS = {"not", "no", "never", "cannot"}
PUNCTUATION = tuple(".,;:!?-\"'()")


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture
def concept(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def contrast_texts(concept: dict[str, Any]) -> list[str]:
    return [pair[side] for pair in concept["contrast"] for side in SIDES]


def all_prompts(concept: dict[str, Any]) -> list[str]:
    return [*concept["prompts"], *concept["validation_prompts"]]


def all_texts(concept: dict[str, Any]) -> list[str]:
    """Every text of a file that a model may be given."""
    return [
        *all_prompts(concept),
        *contrast_texts(concept),
        *concept["personas"].values(),
        *concept["queries"],
    ]


def folded(text: str) -> str:
    return text.casefold().strip()


def opens_with(text: str, prompt: str) -> bool:
    """Whether the words of ``prompt`` are the first words of ``text``, regardless of case."""
    words = folded(prompt).split()
    return folded(text).split()[: len(words)] == words


def test_the_concepts_are_there():
    # Without files the parametrised tests below would be skipped, not failed.
    assert {"sentiment", "toxicity", "truthfulness", "refusal"} <= {path.stem for path in FILES}


def test_keys_and_counts(path: Path, concept: dict[str, Any]):
    assert list(concept) == KEYS
    assert concept["concept"] == path.stem
    assert concept["description"].strip() and "\n" not in concept["description"]
    assert [len(concept[key]) for key in ("contrast", "queries")] == [30, 40]
    # Experiments that tell small differences apart take more than the default.
    assert len(concept["prompts"]) >= 50
    assert len(concept["validation_prompts"]) >= 20
    assert all(list(pair) == SIDES for pair in concept["contrast"])
    assert list(concept["personas"]) == SIDES


def test_file_opens_with_a_comment(path: Path):
    assert path.read_text(encoding="utf-8").startswith("# ")


def test_texts_are_strings_of_printable_ascii(concept: dict[str, Any]):
    # YAML reads an unquoted yes, no or number as something else than a string.
    texts = [*all_texts(concept), concept["description"]]
    assert all(isinstance(text, str) for text in texts)
    assert [text for text in texts if not (text.isascii() and text.isprintable())] == []


def test_texts_are_distinct_across_keys(concept: dict[str, Any]):
    counts = Counter(folded(text) for text in all_texts(concept))
    assert [text for text, count in counts.items() if count > 1] == []


def test_only_personas_end_with_a_space(concept: dict[str, Any]):
    personas = list(concept["personas"].values())
    assert all(text == text.strip() + " " for text in personas)
    others = [text for text in all_texts(concept) if text not in personas]
    assert [text for text in others if text != text.strip()] == []


def test_prompts_are_unfinished_openings(concept: dict[str, Any]):
    prompts = all_prompts(concept)
    assert [prompt for prompt in prompts if prompt.endswith(PUNCTUATION)] == []
    assert [prompt for prompt in prompts if len(prompt.split()) not in PROMPT_WORDS] == []


def test_contrast_and_queries_are_complete_sentences(concept: dict[str, Any]):
    texts = [*contrast_texts(concept), *concept["queries"]]
    assert [text for text in texts if not text.endswith((".", "?"))] == []


def test_contrast_sides_differ_and_share_words(concept: dict[str, Any]):
    for pair in concept["contrast"]:
        positive, negative = (folded(pair[side]) for side in SIDES)
        assert positive != negative
        # A minimal pair keeps at least half of the words of its shorter sentence.
        words, others = Counter(positive.split()), Counter(negative.split())
        shorter = min(words.total(), others.total())
        assert 2 * (words & others).total() >= shorter, pair


def test_negation_does_not_give_the_label_away(concept: dict[str, Any]):
    negated = {
        side: sum(bool(NEGATIONS & set(folded(pair[side]).split())) for pair in concept["contrast"])
        for side in SIDES
    }
    assert abs(negated["positive"] - negated["negative"]) <= 3, negated


def test_no_other_text_opens_with_a_prompt(concept: dict[str, Any]):
    # Generation prompts are held out: nothing a direction is fitted on starts like one.
    others = [*concept["queries"], *contrast_texts(concept)]
    clashes = [
        (prompt, text)
        for prompt in all_prompts(concept)
        for text in others
        if folded(text).startswith(folded(prompt)) or opens_with(text, prompt)
    ]
    assert clashes == []


def test_no_query_shares_the_first_three_words_of_a_prompt(concept: dict[str, Any]):
    openings = {" ".join(prompt.split()[:3]) for prompt in all_prompts(concept)}
    clashes = [
        (opening, query)
        for opening in openings
        for query in concept["queries"]
        if opens_with(query, opening)
    ]
    assert clashes == []


def test_no_prompt_opens_with_another(concept: dict[str, Any]):
    prompts = all_prompts(concept)
    assert [(a, b) for a in prompts for b in prompts if a != b and opens_with(b, a)] == []
