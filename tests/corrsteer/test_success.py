"""Success functions, with the hub's classifiers where one is needed."""

import numpy as np
import pytest

from steering_core.corrsteer.success import (
    ExactOption,
    NumberAfterMark,
    SemanticSimilarity,
)
from steering_core.corrsteer.tasks import TASKS
from steering_core.errors import ModelError
from steering_core.metrics.refusal import Refusal


def test_exact_option():
    letters = [("A", "B")] * 3
    verdict = ExactOption().judge([" A", " A.", " A cat"], ["A", "B", "A"], letters)
    assert verdict.success.tolist() == [True, False, False]
    assert verdict.answer == ["A", "A", None]


def test_numbers_are_compared_as_numbers():
    verdict = NumberAfterMark().judge(
        ["#### 1080", "#### 72", "#### 1", "no"],
        ["x #### 1,080", "#### 72.00", "#### 1,080", "#### 3"],
        [()] * 4,
    )
    assert verdict.success.tolist() == [True, True, False, False]


class Fixed:
    """A classifier with known scores."""

    def __init__(self, scores):
        self.scores, self.seen = np.array(scores), None

    def score(self, *texts):
        self.seen = texts
        return self.scores[: len(texts[0])]


class Everything:
    """A classifier that puts every text in its class, and notes what it was shown."""

    def __init__(self):
        self.seen = []

    def score(self, texts, golds=()):
        self.seen += texts
        return np.ones(len(texts))


@pytest.mark.parametrize(
    ("success", "said", "gold"),
    [
        (ExactOption(), "A", "A"),
        (NumberAfterMark(), "#### 3", "#### 3"),
        (SemanticSimilarity(), "Paris", "Paris"),
        (Refusal(), "I cannot.", "refuse"),
        (TASKS["praise"].success, "superb .", "praise"),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("blank", ["", " ", "\n\n", ".", " --- ", "…"])
def test_an_answer_without_a_word_is_missing_and_no_success(success, said, gold, blank):
    classifier = Everything()
    for other in (gold, "comply") if isinstance(success, Refusal) else (gold,):
        golds, letters = [gold, other, gold], [("A", "B")] * 3
        verdict = success.judge([said, blank, said], golds, letters, classifier)
        assert verdict.success.tolist() == [True, False, True]
        assert verdict.answer[1] is None and None not in verdict.answer[::2]
    assert set(classifier.seen) <= {said}  # the classifier is not asked about it
    none = success.judge([blank], [gold], [("A", "B")])
    assert none.answer == [None] and none.success.tolist() == [False]


def test_similarity_counts_from_the_threshold_on_and_an_empty_answer_fails():
    classifier = Fixed([0.6, 0.59])
    verdict = SemanticSimilarity().judge(
        [" Paris", "", "Rome"], ["Paris"] * 3, [()] * 3, classifier
    )
    assert verdict.success.tolist() == [True, False, False]
    assert classifier.seen == (["Paris", "Rome"], ["Paris", "Paris"])
    assert verdict.answer[1] is None


@pytest.mark.parametrize("success", [Refusal(), SemanticSimilarity()])
def test_a_missing_classifier_is_an_error(success, hub):
    with pytest.raises(ModelError, match="not loaded"):
        success.judge(["x"], ["refuse"], [()])
    with pytest.raises(ModelError, match="nobody/nothing"):
        type(success)(classifier="nobody/nothing").load()


def test_the_hubs_classifiers_tell_clear_cases(hub):
    refusal = Refusal()
    loaded = refusal.load(device="cpu")
    texts = ["I'm sorry, but I cannot help with that request.", "Paris is the capital of France."]
    assert refusal.judge(texts, ["refuse", "comply"], [()] * 2, loaded).success.all()
    blank = refusal.judge(["", "\n\n"], ["refuse"] * 2, [()] * 2, loaded)
    assert blank.answer == [None, None] and not blank.success.any()
    similar = SemanticSimilarity()
    model = similar.load(device="cpu")
    names = ["Michio Sugeno", "Annick Bricaud", "Jay Rosen", "Mattel", "Bangermau"]
    answers = [f"It is {name}." for name in names]
    scores = model.score(answers, names)
    assert ((scores >= 0) & (scores <= 1)).all() and np.ptp(scores) > 0
    one = model.tokenizer(answers[1], names[1], return_tensors="pt")
    assert scores[1] == pytest.approx(float(model.model(**one).logits.sigmoid()), abs=1e-5)
    with pytest.raises(ModelError, match="outputs"):
        SemanticSimilarity(classifier=refusal.classifier).load()
