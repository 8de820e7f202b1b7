import pytest
import yaml

from steering_core.demo import vocabulary
from steering_core.demo.concept import (
    N_CONTRAST,
    N_PROMPTS,
    N_QUERIES,
    N_VALIDATION_PROMPTS,
    write_concept,
)
from steering_core.demo.grammar import Grammar, score_sentiment

LEXICON = vocabulary.lexicon()


@pytest.fixture(scope="module")
def concept(tmp_path_factory):
    path = tmp_path_factory.mktemp("concept") / "concept.yaml"
    write_concept(path, 5)
    return yaml.safe_load(path.read_text())


def test_file_has_the_keys_of_a_concept(concept):
    lists = ["prompts", "validation_prompts", "contrast", "queries"]
    assert set(concept) == {"concept", "personas", *lists}
    counts = [len(concept[key]) for key in lists]
    assert counts == [N_PROMPTS, N_VALIDATION_PROMPTS, N_CONTRAST, N_QUERIES]


def test_prompts_and_queries_are_distinct_and_neutral(concept):
    texts = concept["prompts"] + concept["validation_prompts"] + concept["queries"]
    assert len(set(texts)) == N_PROMPTS + N_VALIDATION_PROMPTS + N_QUERIES
    assert not score_sentiment(texts, LEXICON).any()


def test_contrast_pairs_differ_in_one_sentiment_word(concept):
    for pair in concept["contrast"]:
        positive, negative = pair["positive"].split(), pair["negative"].split()
        different = [(p, n) for p, n in zip(positive, negative, strict=True) if p != n]
        assert len(different) == 1
        assert different[0][0] in LEXICON["positive"]
        assert different[0][1] in LEXICON["negative"]


def test_personas_carry_their_polarity(concept):
    personas = concept["personas"]
    assert score_sentiment([personas["positive"], personas["negative"]], LEXICON).tolist() == [
        1,
        -1,
    ]


def test_every_word_belongs_to_the_language(concept):
    known = {word for d in Grammar(0).documents(3000) for word in d.text.split()}
    texts = concept["prompts"] + concept["validation_prompts"] + concept["queries"]
    texts += list(concept["personas"].values())
    texts += [text for pair in concept["contrast"] for text in pair.values()]
    assert not {word for text in texts for word in text.split()} - known


def test_same_seed_same_bytes(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_concept(tmp_path / name, seed)
    contents = [(tmp_path / name).read_bytes() for name in "abc"]
    assert contents[0] == contents[1] != contents[2]
