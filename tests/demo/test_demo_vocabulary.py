"""The lexicon has two sides, and a text is scored by both."""

import json

import numpy as np
import pytest

from steering_core.demo import vocabulary
from steering_core.demo.vocabulary import score_sentiment, write_lexicon

LEXICON = vocabulary.lexicon()
SENTIMENT_WORDS = set(LEXICON["positive"]) | set(LEXICON["negative"])


def test_no_word_has_both_polarities_and_every_noun_is_neutral():
    assert not set(LEXICON["positive"]) & set(LEXICON["negative"])
    assert not SENTIMENT_WORDS & {noun for domain in vocabulary.DOMAINS for noun in domain}


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
