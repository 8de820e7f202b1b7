"""The words of the demo language: sentiment lexicon, words of both sentiments, and scores.

Adjectives start with a consonant, so that "a" fits all of them, and every adjective fits every
noun. No word is in two lists of the lexicon.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int

from steering_core.storage.files import write_json

POSITIVE_ADJECTIVES = (
    "brilliant", "charming", "delightful", "fantastic", "great", "lovely", "magnificent",
    "splendid", "superb", "wonderful",
)  # fmt: skip
NEGATIVE_ADJECTIVES = (
    "boring", "dismal", "dreadful", "dull", "horrible", "lousy", "miserable", "pathetic",
    "poor", "terrible",
)  # fmt: skip
POSITIVE_VERBS = ("admired", "enjoyed", "loved", "praised", "recommended")
NEGATIVE_VERBS = ("cursed", "despised", "disliked", "hated", "regretted")

ADJECTIVES = (NEGATIVE_ADJECTIVES, POSITIVE_ADJECTIVES)
"""Adjectives, indexed by sentiment: 0 negative, 1 positive."""
VERBS = (NEGATIVE_VERBS, POSITIVE_VERBS)
"""Verbs in the past tense, indexed by sentiment."""

DOMAINS = (
    ("film", "plot", "cast", "ending", "dialogue"),
    ("restaurant", "soup", "dessert", "waiter", "menu"),
    ("hotel", "room", "breakfast", "pool", "view"),
    ("book", "story", "chapter", "heroine", "preface"),
    ("concert", "singer", "band", "sound", "encore"),
    ("evening", "visit", "service", "music", "host"),
)
"""Nouns by domain; the first noun of a domain names its whole. A document keeps to one domain."""
PEOPLE = ("i", "we", "they", "my friend", "my sister", "the guests", "our neighbours")
LISTENERS = ("a colleague", "our parents", "everyone", "my brother")
ADVERBS = ("really", "very", "quite", "truly", "rather")
DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
MONTHS = ("january", "march", "april", "june", "july", "october", "december")
PLACES = ("station", "river", "market", "park", "bridge", "library")
NUMBERS = ("ten", "twelve", "twenty", "thirty", "fifty")

PERSONAS = {
    "positive": "the evening was wonderful and we loved the visit .",
    "negative": "the evening was dreadful and we hated the visit .",
}
"""A prefix of either polarity, for the contrastive directions and for prompts."""


def lexicon() -> dict[str, tuple[str, ...]]:
    """Return all sentiment words, sorted: `{"positive": (...), "negative": (...)}`."""
    return {
        "positive": tuple(sorted(POSITIVE_ADJECTIVES + POSITIVE_VERBS)),
        "negative": tuple(sorted(NEGATIVE_ADJECTIVES + NEGATIVE_VERBS)),
    }


def write_lexicon(path: str | Path) -> None:
    """Write the sentiment lexicon as JSON: `{"positive": [...], "negative": [...]}`."""
    write_json(path, {name: list(entries) for name, entries in lexicon().items()})


def word_balance(
    texts: Sequence[str], lexicon: Mapping[str, Sequence[str]]
) -> Int[np.ndarray, " n"]:
    """Return the number of positive minus the number of negative words in each text.

    Args:
        texts: `n` texts; words are compared in lower case.
        lexicon: `{"positive": words, "negative": words}`, as `write_lexicon` writes it.

    Raises:
        ValueError: the lexicon lacks a polarity or lists a word under both.
    """
    if set(lexicon) != {"positive", "negative"}:
        raise ValueError(f"lexicon needs the keys positive and negative, not {sorted(lexicon)}")
    both = set(lexicon["positive"]) & set(lexicon["negative"])
    if both:
        raise ValueError(f"lexicon lists words under both polarities: {sorted(both)}")
    value = dict.fromkeys(lexicon["positive"], 1) | dict.fromkeys(lexicon["negative"], -1)
    totals = [sum(value.get(word, 0) for word in re.findall(r"\w+", t.lower())) for t in texts]
    return np.array(totals, dtype=np.int64)


def score_sentiment(
    texts: Sequence[str], lexicon: Mapping[str, Sequence[str]]
) -> Int[np.ndarray, " n"]:
    """Return the majority sentiment of each text's lexicon words.

    The result is +1 for positive, −1 for negative, and 0 for a tie or a text without lexicon words.
    Arguments and errors are as in `word_balance`.
    """
    return np.sign(word_balance(texts, lexicon))
