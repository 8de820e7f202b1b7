"""Only the completion is judged, and only if there is one."""

import json

import numpy as np
import pandas as pd
import pytest

from steering_core.config.task import Classifier
from steering_core.errors import ModelError
from steering_core.metrics.classifiers import TextClassifier
from steering_core.metrics.judges import ClassJudge, Lexicon, Vader
from steering_core.metrics.judging import EvaluationProbeJudge, judge_texts, load_judge
from steering_core.models.residual_stream import last_token_residuals
from steering_core.models.site import Site
from steering_core.probes.linear_probe import LinearProbe

SENTIMENT = "distilbert/distilbert-base-uncased-finetuned-sst-2-english"
SITE = Site(2, "pre", False, True)
IDS = [f"p{i}" for i in range(4)]
PROMPTS = ["w1 w2", "w3", "w4 w5 w6", "w7 w8"]


def probe(weight, bias=0.0):
    return LinearProbe(weight, bias, (0, 1), 1.0, 1.0, (1.0,), 0.0, False, 10)


class Recorder(ClassJudge):
    """A judge with given scores that records the texts it was given."""

    def __init__(self, scores):
        self.scores, self.seen = scores, []

    def _score(self, texts):
        self.seen += texts
        return np.array([self.scores[len(self.seen) - len(texts) + i] for i in range(len(texts))])


@pytest.mark.parametrize(("target", "expected"), [(1, [1, 0, 0]), (0, [0, 1, 0])])
def test_the_completion_alone_is_judged(target, expected):
    table = pd.DataFrame(
        {
            "method": "m",
            "strength_index": 0,
            "draw": 0,
            "example_id": ["a", "b", "c", "d"],
            "prompt": ["a wonderful wonderful film"] * 4,
            "text": ["dull", None, "fine", "so so"],
        }
    )
    judge = Recorder([0.9, 0.1, 0.5])
    got = judge_texts(table, judge, target)
    assert judge.seen == ["dull", "fine", "so so"]
    np.testing.assert_array_equal(got["score"], [0.9, np.nan, 0.1, 0.5])
    np.testing.assert_array_equal(got["judged"], [expected[0], np.nan, *expected[1:]])
    assert got["example_id"].tolist() == ["a", "b", "c", "d"]


@pytest.mark.parametrize("target", [0, 1])
def test_an_empty_completion_is_in_no_class_and_not_passed_to_the_judge(target):
    table = pd.DataFrame(
        {
            "method": "m",
            "strength_index": 0,
            "draw": 0,
            "example_id": ["a", "b", "c", "d", "e"],
            "text": ["", "fine", " \n", ' ."! ', None],
        }
    )
    judge = Recorder([0.9])
    got = judge_texts(table, judge, target)
    assert judge.seen == ["fine"]
    nan = np.nan
    np.testing.assert_array_equal(got["score"], [nan, 0.9, nan, nan, nan])
    np.testing.assert_array_equal(got["judged"], [0, target, 0, 0, nan])
    np.testing.assert_array_equal(got["empty"], [1, 0, 1, 1, nan])


def test_further_judges_have_columns_of_their_own():
    table = pd.DataFrame(
        {
            "method": "m",
            "strength_index": 0,
            "draw": 0,
            "example_id": ["a", "b", "c"],
            "text": ["a wonderful film", None, "dreadful, I hate it"],
        }
    )
    got = judge_texts(table, Recorder([0.9, 0.8]), 1, {"vader": Vader()})
    assert got["judged"].tolist()[::2] == [1, 1]
    assert got["judged_vader"].tolist()[::2] == [1, 0]
    assert got["score_vader"][0] > 0.5 > got["score_vader"][2]
    assert got.loc[1, ["score_vader", "judged_vader"]].isna().all()


def test_vader_calls_a_text_without_sentiment_neither_class():
    assert Vader().judge(["the table stands there", "great"], [1, 1]).score[0] == 0.5


def test_no_text_at_all():
    table = pd.DataFrame(
        {"method": "m", "strength_index": 0, "example_id": ["a"], "draw": 0, "text": [None]}
    )
    got = judge_texts(table, Recorder([]), 1)
    assert got[["score", "judged", "empty"]].isna().all(axis=None)


def test_the_evaluation_probe_reads_the_last_token_of_the_completion(tiny):
    weight = np.random.default_rng(0).normal(size=32)
    judge = EvaluationProbeJudge(tiny, SITE, probe(weight, 0.4), batch_tokens=40)
    long = " ".join(f"w{i}" for i in range(60))  # cut by the context of 64 alone
    texts = ["w1 w9 w3", "", long, "  "]
    residuals = last_token_residuals(tiny, ["w1 w9 w3", long], SITE, max_tokens=64, batch_tokens=40)
    expected = 1 / (1 + np.exp(-(residuals.astype(float) @ weight + 0.4)))
    scores = judge.score(texts)
    np.testing.assert_allclose(scores[[0, 2]], expected, atol=1e-5)
    assert np.isnan(scores[[1, 3]]).all()


def test_load_judge_takes_the_configured_kind_and_the_pinned_revision(tmp_path, hub):
    lexicon = tmp_path / "lexicon.json"
    lexicon.write_text(json.dumps({"positive": ["good"], "negative": ["bad"]}))
    assert isinstance(load_judge(Classifier(lexicon=str(lexicon))), Lexicon)
    model = Classifier(model=SENTIMENT, label="POSITIVE")
    assert isinstance(load_judge(model, "cpu"), TextClassifier)
    with pytest.raises(ModelError, match="no such revision"):
        load_judge(model, "cpu", {"revision": "nosuch"})
