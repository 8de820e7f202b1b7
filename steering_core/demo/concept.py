"""The demo's concept file: prompts to continue and texts for the contrastive directions.

The format is that of every task's concept file: `concept`, `prompts`, `validation_prompts` (to
select a strength on), `contrast` (minimal pairs), `personas` (a prefix per polarity) and `queries`
(neutral texts that follow a persona).
"""

from pathlib import Path

import yaml

from steering_core.demo import vocabulary as words
from steering_core.demo.grammar import Grammar
from steering_core.storage.files import write_text

N_PROMPTS = 50
N_VALIDATION_PROMPTS = 40
N_CONTRAST = 30
N_QUERIES = 40
CONTEXT_SHARE = 0.4
"""Probability that a neutral sentence precedes an opening."""

PERSONAS = {
    "positive": "the evening was wonderful and we loved the visit .",
    "negative": "the evening was dreadful and we hated the visit .",
}


def write_concept(path: str | Path, seed: int) -> None:
    """Write the demo's concept file as YAML; equal seeds give equal bytes.

    Prompts of both kinds and queries are distinct and free of sentiment words: they break off
    before the first one. The two texts of a contrast pair differ in one word.
    """
    grammar = Grammar(seed)
    openings = _openings(grammar, N_PROMPTS + N_QUERIES + N_VALIDATION_PROMPTS)
    concept = {
        "concept": "sentiment",
        "prompts": openings[:N_PROMPTS],
        "validation_prompts": openings[N_PROMPTS + N_QUERIES :],
        "contrast": _contrast(grammar, N_CONTRAST),
        "personas": PERSONAS,
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
