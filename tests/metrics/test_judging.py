"""Only the completion is judged or rated, and only if there is one."""

import json

import numpy as np
import pandas as pd
import pytest

from steering_core.config.task import Classifier
from steering_core.errors import ConfigError, ModelError
from steering_core.metrics import judging
from steering_core.metrics.classifiers import TextClassifier
from steering_core.metrics.judges import ClassJudge, Lexicon, Vader
from steering_core.metrics.judging import (
    EvaluationProbeJudge,
    judge_texts,
    load_judge,
    rate_completions,
    rating_endpoint,
)
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


class Declining(Recorder):
    """A judge that may give a text no score."""

    abstains = True


def test_a_text_that_the_judge_refuses_to_rate_has_no_verdict():
    table = pd.DataFrame(
        {
            "method": "m",
            "strength_index": 0,
            "draw": 0,
            "example_id": ["a", "b", "c"],
            "text": ["fine", "dull", ""],
        }
    )
    declined, rated = np.array([np.nan, 0.0]), Recorder([0.9, 0.9])
    for target in (0, 1):
        got = judge_texts(table, Declining(declined), target)
        np.testing.assert_array_equal(got["judged"], [np.nan, 1 - target, 0])
    got = judge_texts(table, rated, 1, {"other": Declining(declined)})
    np.testing.assert_array_equal(got["judged"], [1, 1, 0])
    np.testing.assert_array_equal(got["judged_other"], [np.nan, 0, 0])


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


# ------------------------------------------------------------------------------------------ ratings
API = {"url": "http://127.0.0.1:9/v1", "model": "judge", "concept": "joy"}


class Fixed:
    """Stands in for a rater: gives the digits of a text, and nothing for a dash."""

    def __init__(self, endpoint, cache):
        Fixed.made = (endpoint, cache)

    def rate(self, texts, scales, *, instructions):
        Fixed.asked = (list(texts), list(instructions))
        rows = [
            {"text": i, "scale": scale, "rating": None if digit in "- " else int(digit)}
            for i, text in enumerate(texts)
            for scale, digit in zip(scales, text, strict=True)
        ]
        return pd.DataFrame(rows, columns=["text", "scale", "rating"]).astype({"rating": "Int64"})


@pytest.fixture
def rate(monkeypatch):
    monkeypatch.setattr(judging, "Rater", Fixed)

    def run(texts, target_class=1):
        n = len(texts)
        generations = pd.DataFrame(
            {
                "method": "caa_repe",
                "strength_index": 0,
                "example_id": [f"p{i}" for i in range(n)],
                "draw": 0,
                "strength_name": "alpha",
                "strength": 0.5,
                "prompt": [f"prompt {i}" for i in range(n)],
                "text": texts,
            }
        )
        solutions = generations[["method", "strength_index", "example_id"]].assign(
            split="prompt", tau=np.nan, residual_norm=2.0
        )
        endpoint = rating_endpoint([Classifier(api=API)])
        return rate_completions(
            generations, solutions.iloc[::-1], endpoint, "there", target_class=target_class
        )

    return run


def test_a_text_is_rated_beside_its_own_prompt(rate):
    found = rate(["222", None, "112"])
    assert Fixed.asked == (["222", "112"], ["prompt 0", "prompt 2"])
    assert Fixed.made[0].model == "judge" and Fixed.made[1] == "there"
    assert found["made"].tolist() == [True, False, True]
    np.testing.assert_array_equal(found["fluency"], [2, np.nan, 2])
    np.testing.assert_allclose(found["harmonic"], [2, np.nan, 3 / 2.5])
    assert set(found["split"]) == {"prompt"} and set(found["residual_norm"]) == {2.0}


def test_a_missing_rating_leaves_no_score_and_a_zero_is_a_zero(rate):
    found = rate(["22-", "202"])
    assert np.isnan(found["harmonic"][0]) and found["concept"][0] == 2
    assert found["harmonic"][1] == 0


@pytest.mark.parametrize("target_class", [0, 1])
def test_a_text_without_a_word_scores_0(rate, target_class):
    found = rate(["222", "   "], target_class=target_class)
    assert found.loc[1, ["concept", "instruction", "fluency", "harmonic"]].tolist() == [0] * 4


def test_away_from_a_concept_its_absence_is_the_success(rate):
    found = rate(["022", "222"], target_class=0)
    assert found["concept"].tolist() == [2, 0] and found["harmonic"].tolist() == [2, 0]


def test_without_any_text_nothing_is_asked(rate):
    assert rate([None, None])[["concept", "harmonic"]].isna().all(axis=None)


def test_a_task_without_a_judge_behind_a_server_has_no_ratings():
    judges = [Classifier(builtin="vader"), Classifier(api=API)]
    assert rating_endpoint(judges).concept == "joy"
    with pytest.raises(ConfigError, match="behind a server"):
        rating_endpoint(judges[:1])
