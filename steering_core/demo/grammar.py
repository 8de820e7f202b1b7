"""A probabilistic grammar of short reviews with a known latent sentiment.

A document draws its sentiment (0 negative, 1 positive) first and keeps it for all its sentences;
every sentiment word follows it but for a share `WORD_NOISE` drawn from the other polarity.
Neutral sentences and all other words are drawn alike for both sentiments, so a text tells its
label through the lexicon alone, and not perfectly. Tokens are separated by single spaces.

A text may be unfinished: it goes on with the opening of one more sentence and breaks off before
the sentiment word. There a model that follows the sentiment holds it at the last token, because
it needs it next; after a full stop it does not.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Int

from steering_core.demo import vocabulary as words
from steering_core.storage.files import write_json
from steering_core.storage.parquet import write_parquet

WORD_NOISE = 0.1
"""Probability that a sentiment word is drawn from the other polarity."""
NEUTRAL_SHARE = 0.25
"""Probability that a sentence is neutral (one sentence of a document never is)."""
LENGTH_SHARES = (0.1, 0.3, 0.3, 0.3)
"""Probabilities of 1, 2, 3 and 4 sentences."""

_EVALUATIONS = (
    ("the {noun} was {adverb} {adjective} .", 2),
    ("the {noun} was {adjective} and {adjective} .", 3),
    ("{person} {verb} the {adjective} {noun} .", 3),
    ("{person} found the {noun} {adverb} {adjective} .", 2),
    ("{person} thought the {noun} was {adjective} and {adjective} .", 2),
    ("it was a {adjective} {whole} .", 2),
    ("the {noun} was {adjective} and {person} {verb} the {other} .", 3),
    ("the {noun} was {adjective} but the {other} was {opposite} .", 1),
)
_NEUTRALS = (
    "{person} went there in {month} .",
    "{person} arrived on {day} .",
    "the {whole} was near the {place} .",
    "{person} paid {number} dollars for the {whole} .",
    "{person} told {listener} about the {noun} .",
)
_OPENINGS = (
    "the {noun} was",
    "the {noun} was {adverb}",
    "{person} found the {noun}",
    "{person} thought the {noun} was",
    "it was a",
    "{person}",
)
_FIELD = re.compile(r"\{(\w+)\}")
_TEMPLATES = tuple(template for template, _ in _EVALUATIONS)
_WEIGHTS = np.array([weight for _, weight in _EVALUATIONS], dtype=np.float64)
_WEIGHTS /= _WEIGHTS.sum()


@dataclass(frozen=True)
class Document:
    """A text and the sentiment it was written with (0 negative, 1 positive)."""

    text: str
    label: int


class Grammar:
    """Sampler of documents and of their parts. Equal seeds give equal samples.

    Args:
        seed: seed of the private random generator.
        word_noise: probability that a sentiment word has the other polarity.
    """

    def __init__(self, seed: int, *, word_noise: float = WORD_NOISE) -> None:
        if not 0.0 <= word_noise < 0.5:
            raise ValueError(f"word_noise must lie in [0, 0.5), not {word_noise}")
        self.rng = np.random.default_rng(seed)
        self.word_noise = word_noise

    def choose(self, items: Sequence[str]) -> str:
        """Return one of `items`, uniformly."""
        return items[int(self.rng.integers(len(items)))]

    def domain(self) -> tuple[str, ...]:
        """Return the nouns of one domain, the name of its whole first."""
        return words.DOMAINS[int(self.rng.integers(len(words.DOMAINS)))]

    def evaluation(self, sentiment: int, nouns: Sequence[str]) -> str:
        """Return a sentence that judges, in `sentiment` up to the word noise."""
        template = _TEMPLATES[int(self.rng.choice(len(_TEMPLATES), p=_WEIGHTS))]
        return self._fill(template, nouns, sentiment)

    def neutral(self, nouns: Sequence[str]) -> str:
        """Return a sentence without any sentiment word."""
        return self._fill(self.choose(_NEUTRALS), nouns, None)

    def opening(self, nouns: Sequence[str]) -> str:
        """Return the beginning of a sentence that judges, up to its first sentiment word."""
        return self._fill(self.choose(_OPENINGS), nouns, None)

    def document(self, sentiment: int, *, unfinished: bool = False) -> Document:
        """Return a document of one to four sentences, at least one of which judges.

        `unfinished` appends the opening of a further one.
        """
        nouns = self.domain()
        length = 1 + int(self.rng.choice(len(LENGTH_SHARES), p=LENGTH_SHARES))
        is_neutral = self.rng.random(length) < NEUTRAL_SHARE
        is_neutral[int(self.rng.integers(length))] = False
        sentences = [
            self.neutral(nouns) if neutral else self.evaluation(sentiment, nouns)
            for neutral in is_neutral
        ]
        if unfinished:
            sentences.append(self.opening(nouns))
        return Document(" ".join(sentences), sentiment)

    def documents(self, n_documents: int, *, unfinished: bool = False) -> list[Document]:
        """Return distinct documents in random order, as many positive as negative (±1).

        Raises:
            ValueError: `n_documents` is negative or more than the grammar can keep distinct.
        """
        if n_documents < 0:
            raise ValueError(f"n_documents must not be negative, got {n_documents}")
        sentiments = self.rng.permutation(np.arange(n_documents) % 2)
        seen: set[str] = set()
        documents: list[Document] = []
        for sentiment in sentiments.tolist():
            for _ in range(1000):
                document = self.document(sentiment, unfinished=unfinished)
                if document.text not in seen:
                    break
            else:
                raise ValueError(f"the grammar has too few texts for {n_documents} distinct ones")
            seen.add(document.text)
            documents.append(document)
        return documents

    def _fill(self, template: str, nouns: Sequence[str], sentiment: int | None) -> str:
        noun, other = self.rng.choice(len(nouns), size=2, replace=False)
        plain = {"noun": nouns[noun], "other": nouns[other], "whole": nouns[0]}
        shared = {
            "person": words.PEOPLE,
            "listener": words.LISTENERS,
            "adverb": words.ADVERBS,
            "day": words.DAYS,
            "month": words.MONTHS,
            "place": words.PLACES,
            "number": words.NUMBERS,
        }

        def draw(match: re.Match[str]) -> str:
            field = match.group(1)
            if field in plain:
                return plain[field]
            if field in shared:
                return self.choose(shared[field])
            polarity = self._polarity(sentiment)
            if field == "opposite":
                return self.choose(words.ADJECTIVES[1 - polarity])
            return self.choose((words.VERBS if field == "verb" else words.ADJECTIVES)[polarity])

        return _FIELD.sub(draw, template)

    def _polarity(self, sentiment: int | None) -> int:
        if sentiment not in (0, 1):
            raise ValueError(f"sentiment must be 0 or 1, not {sentiment!r}")
        return 1 - sentiment if self.rng.random() < self.word_noise else sentiment


def write_corpus(
    path: str | Path, n_documents: int, seed: int, *, unfinished: bool = False
) -> None:
    """Write distinct labelled documents as Parquet: `text`, `label` (int64).

    Whole documents are for the language model and the SAEs, unfinished ones for the probes.
    """
    documents = Grammar(seed).documents(n_documents, unfinished=unfinished)
    table = pa.table(
        {
            "text": pa.array([document.text for document in documents], pa.string()),
            "label": pa.array([document.label for document in documents], pa.int64()),
        }
    )
    write_parquet(path, table)


def write_lexicon(path: str | Path) -> None:
    """Write the sentiment lexicon as JSON: `{"positive": [...], "negative": [...]}`."""
    write_json(path, {name: list(entries) for name, entries in words.lexicon().items()})


def word_balance(
    texts: Sequence[str], lexicon: Mapping[str, Sequence[str]]
) -> Int[np.ndarray, " n"]:
    """Return the number of positive less that of negative words in each text.

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

    +1 positive, −1 negative, 0 where there is no lexicon word or a tie; arguments and errors are
    those of `word_balance`.
    """
    return np.sign(word_balance(texts, lexicon))
