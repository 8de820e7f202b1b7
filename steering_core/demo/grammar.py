"""A probabilistic grammar of short reviews with a known latent sentiment, and its texts.

A document first draws its sentiment (0 negative, 1 positive) and keeps it for all its sentences.
Its sentiment words have this polarity, except for a share `WORD_NOISE` from the other polarity.
Neutral sentences and all other words have the same distribution for both sentiments. So only the
lexicon words of a text show its label, and not perfectly. Tokens are separated by single spaces.

An unfinished text continues with the opening of one more sentence and stops before the sentiment
word. A model that follows the sentiment then holds it at the last token, because it needs it for
the next word. After a full stop it need not.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import yaml

from steering_core.demo import vocabulary as words
from steering_core.storage.files import write_text
from steering_core.storage.parquet import write_parquet

WORD_NOISE = 0.1
"""Probability that a sentiment word is drawn from the other polarity."""
NEUTRAL_SHARE = 0.25
"""Probability that a sentence is neutral (one sentence of a document never is)."""
LENGTH_SHARES = (0.1, 0.3, 0.3, 0.3)
"""Probabilities of 1, 2, 3 and 4 sentences."""

N_PROMPTS = 50
N_VALIDATION_PROMPTS = 40
N_CONTRAST = 30
N_QUERIES = 40
CONTEXT_SHARE = 0.4
"""Probability that a neutral sentence precedes an opening."""
PROMPT_NOISE = 0.3
"""Probability that a sentiment word of a prompt is drawn from the other polarity."""

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
        """Return the nouns of one domain; the first is the name of the whole."""
        return words.DOMAINS[int(self.rng.integers(len(words.DOMAINS)))]

    def evaluation(self, sentiment: int, nouns: Sequence[str]) -> str:
        """Return an evaluating sentence in `sentiment`, up to the word noise."""
        template = _TEMPLATES[int(self.rng.choice(len(_TEMPLATES), p=_WEIGHTS))]
        return self._fill(template, nouns, sentiment)

    def neutral(self, nouns: Sequence[str]) -> str:
        """Return a sentence without any sentiment word."""
        return self._fill(self.choose(_NEUTRALS), nouns, None)

    def opening(self, nouns: Sequence[str]) -> str:
        """Return the beginning of an evaluating sentence, up to its first sentiment word."""
        return self._fill(self.choose(_OPENINGS), nouns, None)

    def document(self, sentiment: int, *, unfinished: bool = False) -> Document:
        """Return a document of one to four sentences, at least one of which is evaluating.

        `unfinished` appends the opening of one more.
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

    Use whole documents for the language model and the SAEs, and unfinished ones for the probes.
    """
    documents = Grammar(seed).documents(n_documents, unfinished=unfinished)
    table = pa.table(
        {
            "text": pa.array([document.text for document in documents], pa.string()),
            "label": pa.array([document.label for document in documents], pa.int64()),
        }
    )
    write_parquet(path, table)


def write_concept(path: str | Path, seed: int) -> None:
    """Write the demo's concept file as YAML; equal seeds give equal bytes.

    The format is that of every task's concept file: `concept`, `prompts`, `validation_prompts` (to
    select a strength), `contrast` (minimal pairs), `personas` (a prefix per polarity) and `queries`
    (neutral texts that follow a persona).

    Prompts of both kinds and queries are distinct and stop before the first sentiment word. The two
    texts of a contrast pair differ in one word.
    """
    grammar = Grammar(seed)
    openings = _openings(grammar, N_PROMPTS + N_QUERIES + N_VALIDATION_PROMPTS)
    concept = {
        "concept": "sentiment",
        "prompts": openings[:N_PROMPTS],
        "validation_prompts": openings[N_PROMPTS + N_QUERIES :],
        "contrast": _contrast(grammar, N_CONTRAST),
        "personas": words.PERSONAS,
        "queries": openings[N_PROMPTS : N_PROMPTS + N_QUERIES],
    }
    write_text(path, yaml.safe_dump(concept, sort_keys=False, width=100))


def _openings(grammar: Grammar, n: int) -> list[str]:
    """Return `n` distinct beginnings of a review that leave its sentiment open."""
    found: dict[str, None] = {}
    while len(found) < n:
        nouns = grammar.domain()
        opening = grammar.opening(nouns)
        if grammar.rng.random() < CONTEXT_SHARE:
            opening = f"{grammar.neutral(nouns)} {opening}"
        found[opening] = None
    return list(found)


def _contrast(grammar: Grammar, n: int) -> list[dict[str, str]]:
    """Return `n` distinct minimal pairs: unfinished texts one sentiment word apart."""
    adjectives = list(zip(words.POSITIVE_ADJECTIVES, words.NEGATIVE_ADJECTIVES, strict=True))
    verbs = list(zip(words.POSITIVE_VERBS, words.NEGATIVE_VERBS, strict=True))
    found: dict[str, dict[str, str]] = {}
    while len(found) < n:
        nouns = grammar.domain()
        noun = grammar.choose(nouns)
        person = grammar.choose(words.PEOPLE)
        index = int(grammar.rng.integers(len(adjectives) + len(verbs)))
        pair = (adjectives + verbs)[index]
        if index < len(adjectives):
            frame = grammar.choose((f"the {noun} was {{}} .", f"{person} found the {noun} {{}} ."))
        else:
            frame = f"{person} {{}} the {noun} ."
        frame = f"{frame} {grammar.opening(nouns)}"
        positive, negative = (frame.format(word) for word in pair)
        found[positive] = {"positive": positive, "negative": negative}
    return list(found.values())


def write_praise_task(path: str | Path, n: int, seed: int) -> None:
    """Write ``n`` prompts of a free-text task whose cause of success is known: praise.

    A prompt is an unfinished document. An answer succeeds if its sentiment words are mostly
    positive. The model continues in the sentiment of the prompt, so it succeeds on about half of
    the prompts. The planted feature is the one that carries positive sentiment inside the model: it
    correlates with success, and raising it should repair failures and break no success. The words
    of a prompt disagree more than those of the training texts, so the model is unsure of some
    prompts, as models are of hard questions.

    The file is Parquet with the columns ``prompt`` and ``sentiment`` (int64).

    ``sentiment`` (0 negative, 1 positive) is the ground truth of the prompt. A stage may read it
    only to check a result.
    """
    documents = Grammar(seed, word_noise=PROMPT_NOISE).documents(n, unfinished=True)
    table = pa.table(
        {
            "prompt": pa.array([document.text for document in documents], pa.string()),
            "sentiment": pa.array([document.label for document in documents], pa.int64()),
        }
    )
    write_parquet(path, table)
