"""A change is no effect of steering where the unsteered model does not answer, or guesses."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steering_core.corrsteer.published import Cell, measure
from steering_core.corrsteer.report import (
    answer_cells,
    baseline_concerns,
    guessing_cells,
    paired,
    result_table,
    steered_concerns,
    warnings_of,
)
from steering_core.corrsteer.show import summary
from steering_core.tables.pages import changes_page

SUGGESTION = "try chat_template: true"
LETTERS = "ABCD"


def option_answers(said, golds, n_options=4, layers=()):
    """Answers of an option task; a text that is no letter is unreadable."""
    n = len(said)
    letters = [text if n_options and text in set(LETTERS) else None for text in said]
    return pd.DataFrame(
        {
            "example_id": [f"t:{i}" for i in range(n)],
            "prompt": "p",
            "gold": list(golds),
            "n_options": n_options,
            "text": list(said),
            "answer": letters if n_options else list(said),
            "success": [a == g for a, g in zip(said, golds, strict=True)],
            "status": "ok",
            "reason": "",
            "layers": [list(layers)] * n,
            "strength": "",
            "norm": float(len(layers)),
            "n_features": len(layers),
        }
    )


def golds_of(n, seed=0):
    return np.random.default_rng(seed).choice(list(LETTERS), n)


def able(golds, share=0.7, seed=1):
    """What a model says that is right in this share of the rows, else wrong."""
    right = np.random.default_rng(seed).random(len(golds)) < share
    wrong = [LETTERS[(LETTERS.index(g) + 1 + i % 3) % 4] for i, g in enumerate(golds)]
    return np.where(right, golds, wrong)


@pytest.fixture
def reported():
    """82 of 85 unsteered answers are empty, one is right, and every repaired answer is "A"."""
    golds = golds_of(85)
    first = int(np.flatnonzero(golds == "A")[0])
    before = [""] * 85
    before[first], before[first - 1], before[first + 1] = "A", "my", "the"
    after = ["A" if i % 2 == 0 else text for i, text in enumerate(before)]
    return {"unsteered": option_answers(before, golds), "corrsteer_s": option_answers(after, golds, layers=[2])}


def row_of(runs, method="corrsteer_s", seed="all", **options):
    table = result_table("e", runs, n_resamples=200, **options)
    return table.set_index(["method", "seed"]).loc[(method, seed)]


def test_an_effect_on_empty_answers_is_flagged_and_claimed_by_no_sentence(reported, tmp_path):
    row = row_of({0: reported}, suggestion=SUGGESTION)
    assert row["change_low"] > 0 and row["positive"] >= 5  # it would be an effect
    assert (row["baseline_n_empty"], row["baseline_n_unreadable"]) == (82, 2)
    assert row["baseline_accuracy"] < row["chance"] == 0.25 <= row["constant_accuracy"]
    assert row["top_answer"] == "A" and row["top_answer_share"] == pytest.approx(43 / 85, abs=0.02)
    assert row["baseline_top_answer_share"] == pytest.approx(1 / 85)
    said = row["warnings"].split("; ")
    assert said[0] == "of 85 unsteered answers 82 are empty and 2 cannot be read"
    assert said[1].startswith("the unsteered accuracy (0.012 of 85) is not shown to be better than")
    assert any(text.startswith("all ") and "repaired answers are 'A'" in text for text in said)
    assert said[-1] == SUGGESTION
    table = result_table("e", {0: reported}, n_resamples=200)
    path = tmp_path / "corrsteer.csv"
    table.to_csv(path, index=False)
    verdict = summary(path).splitlines()[-1]
    assert verdict.startswith("no effect of CorrSteer-S can be claimed: of 85 unsteered answers 82")
    for claim in ("raises", "lowers", "does not change"):
        assert claim not in summary(path)
    assert "accuracy without steering 0.0118, by chance 0.25" in summary(path)
    assert "the unsteered answers are no baseline: of 85" in summary(path)
    pairs = {0: {"corrsteer_s": paired(reported["unsteered"], reported["corrsteer_s"])}}
    page = changes_page("t", pairs, warnings_of(table[table["seed"] == "all"]))
    assert "Warning: no effect of corrsteer_s can be claimed: of 85 unsteered" in page
    assert page.count("(empty)") >= 5  # as what the repaired answers were before
    cell = Cell("accuracy", "r", "c", 50.0, None, "mmlu", "corrsteer_s", "accuracy")
    assert "82 are empty" in measure(cell, "e", {0: reported}, n_resamples=20)["reason"]


def test_an_able_model_is_a_baseline(tmp_path):
    golds = golds_of(200)
    runs = {
        0: {
            "unsteered": option_answers(able(golds), golds),
            "corrsteer_s": option_answers(able(golds, 0.9), golds, layers=[2]),
        }
    }
    row = row_of(runs, suggestion=SUGGESTION)
    assert row["warnings"] == "" and row["baseline_accuracy"] > 0.6
    path = tmp_path / "corrsteer.csv"
    result_table("e", runs, n_resamples=200).to_csv(path, index=False)
    assert "CorrSteer-S raises the success rate" in summary(path)
    assert "no effect" not in summary(path) and "baseline" not in summary(path)


def test_guessing_is_no_baseline_whatever_letter_it_gives():
    golds = golds_of(300)
    guessed = golds_of(300, seed=9)
    for said in (guessed, ["B"] * 300):
        (text,) = baseline_concerns(paired(option_answers(said, golds), option_answers(able(golds), golds)))
        assert "not shown to be better" in text
    skewed = np.where(np.arange(300) % 5 == 0, golds, "C")
    told = option_answers(np.where(np.arange(300) % 8 == 0, "D", "C"), skewed)
    (text,) = baseline_concerns(paired(told, told))  # far above chance, and not above "C"
    assert "always answering 'C'" in text


def test_free_text_has_no_chance_and_its_answers_may_all_be_alike():
    table = option_answers(["refuse"] * 60, ["refuse"] * 60, n_options=None)
    runs = {0: {"unsteered": table.assign(success=False), "corrsteer_s": table}}
    row = row_of(runs)
    assert pd.isna(row["chance"]) and pd.isna(row["constant_accuracy"]) and row["warnings"] == ""
    assert (row["top_answer"], row["top_answer_share"]) == ("refuse", 1.0)


def test_steered_answers_that_are_missing_or_all_one_letter_are_flagged():
    golds = golds_of(100)
    before = option_answers(able(golds, 0.8), golds)
    blank = option_answers(["" if i % 2 else g for i, g in enumerate(golds)], golds)
    assert steered_concerns(paired(before, blank)) == [
        "of 100 steered answers 50 are empty and 0 cannot be read"
    ]
    same = option_answers(["B" if i > 4 else "A" for i in range(100)], golds)
    assert "95% of the steered answers are 'B'" in steered_concerns(paired(before, same))
    assert steered_concerns(paired(before, option_answers(able(golds, 0.9, seed=3), golds))) == []


def test_warnings_name_the_seed_and_the_suggestion_comes_once(reported):
    golds = golds_of(85)
    fine = {
        "unsteered": option_answers(able(golds), golds),
        "corrsteer_s": option_answers(able(golds, 0.9), golds, layers=[2]),
    }
    row = row_of({0: fine, 7: reported, 8: reported}, suggestion=SUGGESTION)
    assert row["warnings"].startswith("seed 7: of 85") and "seed 8: of 85" in row["warnings"]
    assert "seed 0" not in row["warnings"] and row["warnings"].count(SUGGESTION) == 1
    assert row_of({0: fine, 7: reported}, seed="0")["warnings"] == ""


def test_a_method_without_answers_has_the_baselines_numbers_alone(reported):
    gone = reported["corrsteer_s"].assign(
        status="undefined", reason="no", text=None, answer=None, success=None
    )
    row = row_of({0: {"unsteered": reported["unsteered"], "corrsteer_s": gone}})
    assert row["baseline_n_empty"] == 82 and row["chance"] == 0.25
    assert row[["n_empty", "n_unreadable", "top_answer", "top_answer_share"]].isna().all()
    assert pd.isna(row["warnings"]) and row["status"] == "undefined"


def test_chance_is_over_the_options_of_each_question():
    cells = guessing_cells(pd.Series(["A", "B", "A"]), pd.Series([2, 4, 10]))
    assert cells["chance"] == pytest.approx((1 / 2 + 1 / 4 + 1 / 10) / 3)
    assert cells["constant_accuracy"] == pytest.approx(2 / 3)


@given(st.lists(st.sampled_from(["", " ", "A", "B", "x"]), min_size=1, max_size=30))
def test_every_answer_is_counted_once(said):
    texts = pd.Series(said, dtype=object)
    read = texts.where(texts.isin(["A", "B"]), None)
    cells = answer_cells(texts, read)
    answered = read.notna().sum()
    assert cells["n_empty"] + cells["n_unreadable"] + answered == len(said)
    if answered:
        assert cells["top_answer_share"] == (read == cells["top_answer"]).sum() / len(said)
        assert cells["top_answer_share"] * len(said) == read.value_counts().max()
    else:
        assert cells["top_answer"] is None and cells["top_answer_share"] is None
