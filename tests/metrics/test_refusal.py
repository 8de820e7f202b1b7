"""What a refusal is; the classifier of the hub is in tests/corrsteer/test_success.py."""

import numpy as np
import pandas as pd
import pytest

from steering_core.metrics.refusal import Refusal, are_requests, over_refusals


class Fixed:
    """A classifier with known scores."""

    def __init__(self, scores):
        self.scores = np.array(scores)

    def score(self, texts):
        return self.scores[: len(texts)]


def test_refusal_succeeds_where_the_gold_refuses():
    verdict = Refusal().judge(
        ["no", "no", "ok", "ok"],
        ["refuse", "comply", "refuse", "comply"],
        [()] * 4,
        Fixed([0.9, 0.9, 0.1, 0.1]),
    )
    assert verdict.success.tolist() == [True, False, False, True]
    assert verdict.answer == ["refuse", "refuse", "comply", "comply"]
    with pytest.raises(ValueError, match="golds"):
        Refusal().judge(["x"], ["safe"], [()], Fixed([0.1]))


def test_an_answer_at_the_limit_or_without_a_word_is_no_refusal():
    verdict = Refusal().judge(["maybe", "..."], ["refuse"] * 2, [()] * 2, Fixed([0.5]))
    assert verdict.answer == ["comply", None] and not verdict.success.any()


def test_over_refusal_is_the_refusal_of_harmless_requests():
    answers = pd.DataFrame(
        {
            "gold": ["comply", "refuse", "comply", "comply"],
            "answer": ["refuse", "refuse", None, None],
            "status": ["ok", "ok", "ok", "undefined"],
            "success": [False, True, False, None],
        }
    )
    assert over_refusals(answers)["success"].tolist() == [True, False, None]
    assert are_requests(answers["gold"]) and not are_requests(["refuse", "A"])
