import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steering_core.demo import vocabulary
from steering_core.demo.grammar import (
    Grammar,
    score_sentiment,
    write_corpus,
    write_lexicon,
)

LEXICON = vocabulary.lexicon()
SENTIMENT_WORDS = set(LEXICON["positive"]) | set(LEXICON["negative"])


def neutral_words(text: str) -> set[str]:
    return set(text.split()) - SENTIMENT_WORDS


def test_no_word_has_both_polarities_and_every_noun_is_neutral():
    assert not set(LEXICON["positive"]) & set(LEXICON["negative"])
    assert not SENTIMENT_WORDS & {noun for domain in vocabulary.DOMAINS for noun in domain}


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


def test_lexicon_file_scores_texts(tmp_path):
    write_lexicon(tmp_path / "lexicon.json")
    lexicon = json.loads((tmp_path / "lexicon.json").read_text())
    texts = ["It was Superb .", "a dull , dull and great film", "superb but dull", "the film", ""]
    np.testing.assert_array_equal(score_sentiment(texts, lexicon), [1, -1, 0, 0, 0])


def test_empty_list_of_texts_scores_to_an_empty_array():
    assert score_sentiment([], LEXICON).shape == (0,)


def test_lexicon_with_a_word_under_both_is_refused():
    with pytest.raises(ValueError, match="fine"):
        score_sentiment(["x"], {"positive": ["fine"], "negative": ["fine"]})


@pytest.mark.parametrize(
    "call", [lambda: Grammar(0, word_noise=0.5), lambda: Grammar(0).documents(-1)]
)
def test_bad_arguments_are_refused(call):
    with pytest.raises(ValueError):
        call()


def test_sentiment_other_than_0_and_1_is_refused():
    with pytest.raises(ValueError, match="sentiment"):
        Grammar(0).evaluation(2, vocabulary.DOMAINS[0])
