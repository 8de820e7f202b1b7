"""The interface of judges, and the judge that counts words."""

import json
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steering_core.corrsteer.success import ExactOption, SemanticSimilarity
from steering_core.errors import ConfigError
from steering_core.metrics.judges import (
    ClassJudge,
    Judge,
    Lexicon,
    Verdict,
    in_target_class,
    is_empty,
)


class Length(ClassJudge):
    """The longer a text, the more it belongs to class 1."""

    def _score(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([len(text) / 10 for text in texts])


class Similar:
    """Every pair of texts is as similar as this says."""

    def score(self, left, right):
        return np.full(len(left), 0.7)


LETTERS = [("A", "B")] * 4
WORDLESS = ["", " ", "...", "\n", "—", "?!"]


@pytest.mark.parametrize(
    ("judge", "golds", "loaded", "success"),
    [
        (Length(), [1, 0, 1, 0], None, [False, False, False, True]),
        (ExactOption(), ["A", "B", "B", "B"], None, [True, False, False, True]),
        (SemanticSimilarity(), ["A", "B", "C", "D"], Similar(), [True, True, False, True]),
    ],
    ids=["class", "option", "similarity"],
)
@pytest.mark.parametrize("blank", WORDLESS)
def test_both_halves_have_one_kind_of_verdict(judge: Judge, golds, loaded, success, blank):
    texts = ["A", "A because", blank, "B"]
    verdict = judge.judge(texts, golds, LETTERS, loaded)
    assert is_empty(texts).tolist() == [False, False, True, False]
    assert [np.isnan(score) for score in verdict.score] == [False, False, True, False]
    assert verdict.answer[2] is None and not verdict.success[2]
    assert verdict.success.dtype == bool and len(verdict.answer) == len(verdict.score) == 4
    assert verdict.success.tolist() == success


def test_a_judge_that_only_compares_scores_one_and_zero():
    verdict = ExactOption().judge(["A", "", "B"], ["A"] * 3, LETTERS[:3])
    np.testing.assert_array_equal(verdict.score, [1, np.nan, 0])


def test_the_score_is_the_one_that_decided():
    similar = SemanticSimilarity().judge(["Rome", "-"], ["Paris"] * 2, None, Similar())
    np.testing.assert_array_equal(similar.score, [0.7, np.nan])
    assert similar.success.tolist() == [True, False]


def test_a_class_judge_compares_each_text_with_its_own_class():
    verdict = Length().judge(["a" * 7, "a" * 7, "a" * 3, "a" * 3, "a" * 5, "a" * 5], [1, 0] * 3)
    assert verdict.success.tolist() == [True, False, False, True, False, False]
    assert verdict.answer == ["1", "1", "0", "0", None, None]
    np.testing.assert_allclose(verdict.score, [0.7, 0.7, 0.3, 0.3, 0.5, 0.5])


@given(st.lists(st.sampled_from(["aaa", "aaaaaaaa", "", "..", "aaaaa"]), max_size=8), st.data())
def test_empty_texts_change_nothing_of_the_others(texts, data):
    golds = data.draw(st.lists(st.sampled_from([0, 1]), min_size=len(texts), max_size=len(texts)))
    whole = Length().judge(texts, golds)
    said = np.flatnonzero(~is_empty(texts))
    alone = Length().judge([texts[i] for i in said], [golds[i] for i in said])
    assert whole.success[said].tolist() == alone.success.tolist()
    assert [whole.answer[i] for i in said] == alone.answer
    assert int(np.isnan(whole.score).sum()) == len(texts) - len(said)


def test_no_text_gives_no_verdict():
    verdict = Length().judge([], [])
    assert isinstance(verdict, Verdict)
    assert (len(verdict.answer), len(verdict.success), len(verdict.score)) == (0, 0, 0)


@pytest.fixture
def lexicon(tmp_path):
    path = tmp_path / "lexicon.json"
    path.write_text(json.dumps({"positive": ["good", "fine"], "negative": ["bad"]}))
    return path


def test_lexicon_counts_words(lexicon):
    texts = ["A GOOD, fine day", "bad!", "good bad fine", "goodness", "", "bad good"]
    scores = Lexicon(lexicon).score(texts)
    np.testing.assert_allclose(scores, [1, 0, 2 / 3, 0.5, np.nan, 0.5])


@pytest.mark.parametrize(
    "content", [None, {"positive": []}, {"positive": [], "negative": [], "x": []}]
)
def test_a_lexicon_of_another_form(tmp_path, content):
    path = tmp_path / "lexicon.json"
    if content is not None:
        path.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"classifier\.lexicon"):
        Lexicon(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is not JSON"),
        ("[]", "not a list"),
        ('{"positive": [], "negativ": []}', r"negativ: unknown key \(did you mean 'negative'"),
        ('{"positive": [1], "negative": []}', "put it in quotes"),
        ('{"positive": "good", "negative": []}', "positive: Input should be a valid list"),
        ('{"positive": []}', "negative: is missing: a list of words that speak for class 0"),
    ],
)
def test_a_broken_lexicon_is_one_message_with_its_file(tmp_path, content, said):
    path = tmp_path / "lexicon.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match=said) as caught:
        Lexicon(path)
    message = str(caught.value)
    assert str(path) in message and "classifier.lexicon" in message and "\n" not in message


def test_target_class_is_strict():
    scores = np.array([0.2, 0.5, 0.7, np.nan])
    assert in_target_class(scores, 1).tolist() == [0, 0, 1, 0]
    assert in_target_class(scores, 0).tolist() == [1, 0, 0, 0]


def test_words_with_digits_apostrophes_and_accents_are_words(tmp_path):
    path = tmp_path / "lexicon.json"
    path.write_text(json.dumps({"positive": ["w1", "don't", "très"], "negative": ["bad"]}))
    texts = ["w1.", "w12 bad", "DON'T!", "très, bad", "'bad'"]
    assert Lexicon(path).score(texts).tolist() == [1.0, 0.0, 1.0, 0.5, 0.0]


@pytest.mark.parametrize("word", ["two words", "Upper", "a_b", "", "."])
def test_a_word_that_can_match_nothing_is_refused(tmp_path, word):
    path = tmp_path / "lexicon.json"
    path.write_text(json.dumps({"positive": [word], "negative": ["bad"]}))
    with pytest.raises(ConfigError, match="can match no word"):
        Lexicon(path)
