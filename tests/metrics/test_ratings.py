"""Ratings of completions: what is asked, and what a text without a rating becomes."""

import numpy as np
import pandas as pd
import pytest

from steering_core.config.task import Classifier
from steering_core.errors import ConfigError
from steering_core.metrics import ratings
from steering_core.metrics.ratings import rate_completions, rating_endpoint

API = {"url": "http://127.0.0.1:9/v1", "model": "judge", "concept": "joy"}


class Fixed:
    """Stands in for a rater: gives the digits of a text, and nothing for a dash."""

    def __init__(self, endpoint, cache):
        Fixed.made = (endpoint, cache)

    def rate(self, texts, scales, *, instructions):
        Fixed.asked = (list(texts), list(instructions))
        rows = [
            {"text": i, "scale": scale, "rating": None if digit == "-" else int(digit)}
            for i, text in enumerate(texts)
            for scale, digit in zip(scales, text, strict=True)
        ]
        return pd.DataFrame(rows, columns=["text", "scale", "rating"]).astype({"rating": "Int64"})


@pytest.fixture
def rate(monkeypatch):
    monkeypatch.setattr(ratings, "Rater", Fixed)

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
