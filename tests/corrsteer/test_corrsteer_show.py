"""What ``make demo`` prints of CorrSteer is read off its table."""

import pandas as pd
import pytest

from steering_core.corrsteer.report import result_table
from steering_core.corrsteer.show import summary
from steering_core.storage.files import write_json


def answers(success, layers=(), **columns):
    n = len(success)
    return pd.DataFrame(
        {
            "example_id": [f"t:{i}" for i in range(n)],
            "prompt": "p",
            "gold": "praise",
            "n_options": None,
            "text": "x",
            "answer": "positive",
            "success": success,
            "status": "ok",
            "reason": "",
            "layers": [list(layers)] * n,
            "strength": "",
            "norm": float(len(layers)),
            "n_features": len(layers),
        }
    ).assign(**columns)


@pytest.mark.parametrize(
    ("after", "says"),
    [
        ([True] * 20, "raises the success rate: +0.500"),
        ([False] * 20, "lowers the success rate: -0.500"),
        ([True, False] * 10, "is not shown to change the success rate: +0.000"),
        # Four repaired answers: the bootstrap leaves 0 out, and McNemar's p is 0.125.
        ([True] * 8 + [True, False] * 6, "is not shown to change the success rate: +0.200"),
    ],
)
def test_the_sentence_follows_the_interval(tmp_path, after, says):
    before = answers([True, False] * 10)
    runs = {0: {"unsteered": before, "corrsteer_s": answers(after, [2])}}
    path = tmp_path / "corrsteer.csv"
    result_table("demo_praise", runs, n_resamples=200).to_csv(path, index=False)
    text = summary(path)
    assert says in text and "seed 0, 20 test prompts" in text and "look at" not in text
    (tmp_path / "corrsteer_changes.html").touch()
    assert summary(path).splitlines()[-1].endswith("corrsteer_changes.html")


def test_what_could_not_be_run_is_said(tmp_path):
    gone = answers([None] * 4, status="undefined", reason="never fires")
    runs = {0: {"unsteered": answers([True] * 4), "corrsteer_s": gone}}
    path = tmp_path / "corrsteer.csv"
    result_table("e", runs, n_resamples=20).to_csv(path, index=False)
    assert "corrsteer_s is undefined: never fires" in summary(path)
    assert "success rate" not in summary(path)


def test_the_feature_is_compared_with_the_planted_one(tmp_path):
    before = answers([True, False] * 4)
    path = tmp_path / "corrsteer.csv"
    runs = {0: {"unsteered": before, "corrsteer_s": answers([True] * 8, [2])}}
    result_table("demo_praise", runs, n_resamples=50).to_csv(path, index=False)
    found = dict(layer=2, feature=7, rank=3, n_features=96, n_prompts=500)
    found |= dict(auc=0.875, auc_words=0.9, auc_success=0.99)
    write_json(tmp_path / "planted_feature.json", found)
    said = summary(path)
    assert "7 of layer 2" in said and "success with an AUC of 0.990" in said
    assert "with 0.875, number 3 of" in said and "words tells it with 0.900" in said
