"""The words of the demo language: a sentiment lexicon and everything both sentiments share.

Adjectives start with a consonant, so that "a" fits all of them, and every adjective fits every
noun. No word stands in two lists of the lexicon.
"""

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


def lexicon() -> dict[str, tuple[str, ...]]:
    """Return all sentiment words, sorted: `{"positive": (...), "negative": (...)}`."""
    return {
        "positive": tuple(sorted(POSITIVE_ADJECTIVES + POSITIVE_VERBS)),
        "negative": tuple(sorted(NEGATIVE_ADJECTIVES + NEGATIVE_VERBS)),
    }
