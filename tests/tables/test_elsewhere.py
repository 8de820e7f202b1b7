"""The table and the picture of the cost elsewhere, from rows with known sums."""

import json

import numpy as np
import pandas as pd
import pytest

from steering_core.errors import DataError
from steering_core.tables.elsewhere import elsewhere_figure, elsewhere_table

SUMMARY = pd.DataFrame(
    {
        "method": ["no_steering", "caa_repe", "qp_optimal"],
        "strength": ["alpha=0", "alpha=0.5", np.nan],
        "effect": [0.0, 0.3, np.nan],
        "effect_low": [0.0, 0.1, np.nan],
        "effect_high": [0.0, 0.5, np.nan],
    }
)


def texts(kl=(0.0, 0.0), nll=(20.0, 10.0), status="ok", added=(11, 6)):
    return pd.DataFrame(
        {
            "example_id": ["a", "b"],
            "status": status,
            "reason": "" if status == "ok" else "no strength of qp_optimal is selected",
            "n_tokens": [10, 5],
            "kl_sum": kl,
            "nll_sum": nll,
            "base_nll_sum": [20.0, 10.0],
            "n_added": pd.array(added, dtype="Int32"),
            "n_positions": pd.array([11 if a is not None else None for a in added], dtype="Int32"),
        }
    )


def answers(success, gold=None, status="ok", n_options=None):
    n = len(success)
    gold = gold or ["A"] * n
    other = {"refuse": "comply", "comply": "refuse", "A": "B", "B": "A"}
    return pd.DataFrame(
        {
            "example_id": [str(i) for i in range(n)],
            "gold": gold,
            "answer": [
                None if s is None else g if s else other[g]
                for s, g in zip(success, gold, strict=True)
            ],
            "n_options": pd.array([n_options] * n, dtype="Int32"),
            "success": pd.array(success, dtype=object),
            "status": status if isinstance(status, list) else [status] * n,
            "reason": ["" if s else "program: infeasible" for s in success],
        }
    )


def table(found):
    return elsewhere_table("e", SUMMARY, found, seed=0, n_resamples=200)


def test_neutral_text_has_kl_and_perplexity_of_the_same_texts():
    found = {
        ("text", "no_steering"): texts(),
        ("text", "caa_repe"): texts((5.0, 1.0), (25.0, 14.0)),
    }
    kl, perplexity = table(found).to_dict("records")
    assert (kl["measure"], kl["n"], kl["n_missing"]) == ("kl", 2, 0)
    assert kl["steered"] == kl["change"] == pytest.approx(6 / 15)
    assert kl["change_low"] == pytest.approx(0.2) and kl["change_high"] == pytest.approx(0.5)
    assert perplexity["unsteered"] == pytest.approx(np.exp(2))
    assert perplexity["steered"] == pytest.approx(np.exp(39 / 15))
    assert perplexity["change"] == pytest.approx(np.exp(39 / 15) - np.exp(2))
    # The two texts alone have the least and the largest change.
    assert perplexity["change_low"] == pytest.approx(np.exp(2.5) - np.exp(2))
    assert perplexity["change_high"] == pytest.approx(np.exp(2.8) - np.exp(2))
    assert (kl["strength"], kl["effect"], kl["effect_high"]) == ("alpha=0.5", 0.3, 0.5)


def test_the_share_of_neutral_positions_at_which_something_is_added():
    found = {
        ("text", "no_steering"): texts(added=(0, 0)),
        ("text", "caa_repe"): texts(added=(11, 11)),
        ("text", "qp_optimal"): texts(added=(0, 11)),
        ("mmlu", "no_steering"): answers([True]),
        ("mmlu", "caa_repe"): answers([False]),
    }
    rows = table(found)
    share = rows[rows["probe"] == "text"].groupby("method")["steered_share"].agg(set)
    assert share.to_dict() == {"caa_repe": {1.0}, "qp_optimal": {0.5}}
    assert rows.loc[rows["probe"] == "mmlu", "steered_share"].isna().all()
    # Nothing is added to the residual stream.
    found = {("text", "no_steering"): texts(), ("text", "caa_repe"): texts(added=(None, None))}
    assert table(found).filter(like="steered_share").isna().all(axis=None)


def test_a_method_without_a_strength_has_a_row_without_numbers():
    found = {
        ("text", "no_steering"): texts(),
        ("text", "qp_optimal"): texts((np.nan,) * 2, (np.nan,) * 2, "undefined"),
    }
    rows = table(found)
    assert (rows["n"] == 0).all() and (rows["n_missing"] == 2).all()
    assert rows[["unsteered", "steered", "change", "strength"]].isna().all(axis=None)
    assert set(rows["reason"]) == {"2 no strength of qp_optimal is selected"}
    assert "cost elsewhere was measured" in json.dumps(elsewhere_figure(rows).to_dict())


def test_accuracy_is_compared_question_by_question():
    before = answers([True, True, False, False, True], n_options=4)
    after = answers([True, False, False, False, None], status=["ok"] * 4 + ["undefined"])
    # Another order of the same questions.
    found = {("mmlu", "no_steering"): before, ("mmlu", "caa_repe"): after.iloc[::-1]}
    (row,) = table(found).to_dict("records")
    assert (row["measure"], row["n"], row["n_missing"]) == ("accuracy", 4, 1)
    assert row["reason"] == "1 program: infeasible" and row["chance"] == 0.25
    assert (row["unsteered"], row["steered"], row["change"]) == (0.5, 0.25, -0.25)
    assert row["change_low"] <= -0.25 <= row["change_high"]


def test_no_changed_answer_of_a_few_is_no_proof_that_none_changes():
    same = [True, True, False, False, True]
    found = {("mmlu", "no_steering"): answers(same), ("mmlu", "caa_repe"): answers(same)}
    (row,) = table(found).to_dict("records")
    most = 1 - 0.025 ** (1 / 5)
    assert row["change"] == 0
    assert (row["change_low"], row["change_high"]) == pytest.approx((-most, most))


def test_requests_have_refusals_of_harmful_and_of_harmless_ones():
    gold = ["refuse", "refuse", "comply", "comply"]
    found = {
        ("xstest", "no_steering"): answers([True, True, True, True], gold),
        ("xstest", "caa_repe"): answers([True, False, False, True], gold),
    }
    harmful, harmless = table(found).to_dict("records")
    assert (harmful["measure"], harmless["measure"]) == (
        "refusal_of_harmful",
        "refusal_of_harmless",
    )
    assert (harmful["unsteered"], harmful["steered"]) == (1.0, 0.5)
    assert (harmless["unsteered"], harmless["steered"], harmless["change"]) == (0.0, 0.5, 0.5)
    only = {key: rows.iloc[:2] for key, rows in found.items()}
    assert table(only)["measure"].tolist() == ["refusal_of_harmful"]


def test_an_answer_without_a_word_refuses_nothing():
    gold = ["refuse", "comply", "comply"]
    after = answers([False, False, False], gold)
    after.loc[[0, 1], "answer"] = None
    found = {
        ("xstest", "no_steering"): answers([True, True, True], gold),
        ("xstest", "caa_repe"): after,
    }
    harmful, harmless = table(found).to_dict("records")
    assert (harmful["n"], harmful["steered"]) == (1, 0.0)
    assert (harmless["n"], harmless["unsteered"], harmless["steered"]) == (2, 0.0, 0.5)


def test_a_guarded_program_is_compared_with_the_same_without_guards():
    summary = pd.concat([SUMMARY, SUMMARY.iloc[[1]].assign(method="caa_guarded", effect=0.2)])
    gold = ["refuse", "refuse", "comply"]
    found = {
        ("text", "no_steering"): texts(),
        ("text", "caa_repe"): texts((5.0, 1.0), (25.0, 14.0)),
        ("text", "caa_guarded"): texts((2.0, 0.5), (22.0, 11.0)).iloc[::-1],
        ("xstest", "no_steering"): answers([True, True, True], gold),
        ("xstest", "caa_repe"): answers([False, False, True], gold),
        ("xstest", "caa_guarded"): answers(
            [True, None, True], gold, status=["ok", "undefined", "ok"]
        ),
    }
    made = elsewhere_table(
        "e",
        summary,
        found,
        seed=0,
        n_resamples=200,
        unguarded={"caa_guarded": "caa_repe", "lonely": None},
    )
    rows = made[made["method"] == "caa_guarded"].set_index("measure")
    assert set(rows["unguarded_method"]) == {"caa_repe"}
    assert rows["n_guard"].tolist() == [2, 2, 1, 1]
    kl, perplexity = rows.loc["kl"], rows.loc["perplexity"]
    assert kl["change"] == pytest.approx(2.5 / 15)
    assert kl["guard_change"] == pytest.approx(-3.5 / 15)
    assert kl["guard_change_low"] == pytest.approx(-0.3)
    assert kl["guard_change_high"] == pytest.approx(-0.1)
    assert perplexity["guard_change"] == pytest.approx(np.exp(33 / 15) - np.exp(39 / 15))
    # Without steering both harmful requests are refused; of the one with both answers, the guard
    # keeps the refusal.
    assert rows.loc["refusal_of_harmful", "change"] == 0
    assert rows.loc["refusal_of_harmful", "guard_change"] == 1
    assert rows.loc["refusal_of_harmless", "guard_change"] == 0
    plain = made[made["method"] == "caa_repe"]
    assert plain["unguarded_method"].isna().all() and plain["guard_change"].isna().all()
    assert (plain["n_guard"] == 0).all()


def test_other_questions_are_no_baseline():
    found = {
        ("mmlu", "no_steering"): answers([True, True]),
        ("mmlu", "caa_repe"): answers([True, True], ["A", "B"]),
    }
    with pytest.raises(DataError, match="same options"):
        table(found)
    found["mmlu", "caa_repe"] = answers([True])
    with pytest.raises(DataError, match="do not pair up"):
        table(found)


def test_the_picture_has_a_panel_for_each_measure():
    gold = ["refuse", "comply"]
    found = {
        ("text", "no_steering"): texts(),
        ("text", "caa_repe"): texts((5.0, 1.0), (25.0, 14.0)),
        ("xstest", "no_steering"): answers([True, True], gold),
        ("xstest", "caa_repe"): answers([True, False], gold),
    }
    chart = elsewhere_figure(table(found)).to_dict()
    named = [panel["layer"][0]["encoding"]["x"]["title"] for panel in chart["concat"]]
    assert named[0].startswith("KL") and "perplexity" in named[1]
    assert named[2:] == [
        "change of the refusal of harmful requests, xstest",
        "change of the refusal of harmless requests, xstest",
    ]
