import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from steering_core.demo import vocabulary
from steering_core.demo.grammar import (
    N_CONTRAST,
    N_PROMPTS,
    N_QUERIES,
    N_VALIDATION_PROMPTS,
    Grammar,
    write_concept,
    write_corpus,
    write_praise_task,
)
from steering_core.demo.vocabulary import score_sentiment

LEXICON = vocabulary.lexicon()
SENTIMENT_WORDS = set(LEXICON["positive"]) | set(LEXICON["negative"])


def neutral_words(text: str) -> set[str]:
    return set(text.split()) - SENTIMENT_WORDS


@given(seed=st.integers(0, 2**32), n=st.integers(0, 60), unfinished=st.booleans())
@settings(max_examples=25, deadline=None)
def test_documents_are_balanced_distinct_and_seeded(seed, n, unfinished):
    documents = Grammar(seed).documents(n, unfinished=unfinished)
    assert len({d.text for d in documents}) == n
    assert abs(sum(2 * d.label - 1 for d in documents)) <= 1
    assert documents == Grammar(seed).documents(n, unfinished=unfinished)
    for document in documents:
        assert SENTIMENT_WORDS & set(document.text.split())
        assert document.text.endswith(".") != unfinished


def test_without_noise_only_the_mixed_sentence_holds_both_polarities():
    for document in Grammar(0, word_noise=0.0).documents(300):
        wrong = LEXICON["negative" if document.label else "positive"]
        for sentence in document.text.split(" ."):
            assert not set(wrong) & set(sentence.split()) or " but " in sentence


def test_lexicon_tells_the_label_well_but_not_perfectly():
    documents = Grammar(1).documents(3000)
    labels = np.array([d.label for d in documents])
    accuracy = np.mean((score_sentiment([d.text for d in documents], LEXICON) > 0) == labels)
    assert 0.85 < accuracy < 0.97


def test_both_classes_share_every_other_word():
    documents = Grammar(2).documents(2000)
    used = [
        {w for d in documents if d.label == label for w in neutral_words(d.text)}
        for label in (0, 1)
    ]
    assert used[0] == used[1]


def test_unfinished_text_breaks_off_before_a_sentiment_word():
    for document in Grammar(3).documents(200, unfinished=True):
        opening = document.text.rsplit(" . ", 1)[1]
        assert opening
        assert not SENTIMENT_WORDS & set(opening.split())


def test_neutral_sentence_has_no_sentiment_word():
    grammar = Grammar(4)
    assert all(
        score_sentiment([grammar.neutral(grammar.domain())], LEXICON)[0] == 0 for _ in "x" * 99
    )


def test_corpus_file_has_the_same_bytes_twice(tmp_path):
    write_corpus(tmp_path / "a.parquet", 50, 7)
    write_corpus(tmp_path / "b.parquet", 50, 7)
    write_corpus(tmp_path / "c.parquet", 50, 8)
    contents = [(tmp_path / f"{name}.parquet").read_bytes() for name in "abc"]
    assert contents[0] == contents[1] != contents[2]
    table = pq.read_table(tmp_path / "a.parquet")
    assert table.column_names == ["text", "label"]
    assert sorted(table["label"].to_pylist()) == [0] * 25 + [1] * 25


@pytest.mark.parametrize(
    "call", [lambda: Grammar(0, word_noise=0.5), lambda: Grammar(0).documents(-1)]
)
def test_bad_arguments_are_refused(call):
    with pytest.raises(ValueError):
        call()


def test_sentiment_other_than_0_and_1_is_refused():
    with pytest.raises(ValueError, match="sentiment"):
        Grammar(0).evaluation(2, vocabulary.DOMAINS[0])


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


def test_same_seed_gives_the_same_concept_file(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_concept(tmp_path / name, seed)
    contents = [(tmp_path / name).read_bytes() for name in "abc"]
    assert contents[0] == contents[1] != contents[2]


def test_prompts_of_the_task_are_balanced_distinct_and_unfinished(tmp_path):
    write_praise_task(tmp_path / "a", 60, 3)
    table = pq.read_table(tmp_path / "a").to_pydict()
    assert list(table) == ["prompt", "sentiment"]
    assert sum(table["sentiment"]) == 30 and len(set(table["prompt"])) == 60
    assert not any(prompt.endswith(".") for prompt in table["prompt"])


def test_equal_seeds_give_equal_prompts_of_the_task(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_praise_task(tmp_path / name, 40, seed)
    contents = [(tmp_path / name).read_bytes() for name in "abc"]
    assert contents[0] == contents[1] != contents[2]
