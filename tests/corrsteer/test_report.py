"""The table of results, its warnings of changes that are no effect, and the page of changes."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

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
from steering_core.errors import DataError
from steering_core.tables.pages import changes_page


def answers(success, status="ok", reason="", layers=(2,)):
    n = len(success)
    return pd.DataFrame(
        {
            "example_id": [f"t:{i}" for i in range(n)],
            "prompt": [f"p{i}" for i in range(n)],
            "gold": "A",
            "n_options": None,
            "text": ["A" if s else "B" for s in success],
            "answer": ["A" if s else "B" for s in success],
            "success": success,
            "status": status,
            "reason": reason,
            "layers": [list(layers)] * n,
            "strength": "scale 1",
            "norm": 2.0,
            "n_features": len(layers),
        }
    )


BEFORE = [True, True, True, False, False, False, False, True]
AFTER = [True, False, True, True, True, True, False, True]


def test_counts_ratio_and_test_are_paired_by_id():
    shuffled = answers(AFTER).sample(frac=1.0, random_state=0)
    runs = {0: {"unsteered": answers(BEFORE), "s": shuffled}}
    row = result_table("e", runs, n_resamples=200).query("method == 's' and seed == '0'").iloc[0]
    assert (row["negative"], row["positive"], row["n"]) == (1, 3, 8)
    assert row["ser"] == pytest.approx(0.25) and row["ser_low"] <= 0.25 <= row["ser_high"]
    assert row["mcnemar_p"] == pytest.approx(0.625)
    assert row["accuracy"] == pytest.approx(6 / 8) and row["baseline_accuracy"] == 0.5
    assert row["accuracy_low"] < 0.75 < row["accuracy_high"] and row["layers"] == "2"


def test_seeds_are_spread_and_pooled():
    runs = {
        0: {"unsteered": answers(BEFORE), "s": answers(AFTER)},
        1: {"unsteered": answers(BEFORE), "s": answers(BEFORE)},
    }
    table = result_table("e", runs, n_resamples=50)
    assert table["seed"].tolist() == ["0", "1", "all"] * 2
    row = table.query("method == 's' and seed == 'all'").iloc[0]
    assert row["accuracy"] == pytest.approx(0.625)
    assert row["accuracy_std"] == pytest.approx(np.std([0.75, 0.5], ddof=1))
    assert (row["n"], row["n_seeds"], row["negative"], row["positive"]) == (16, 2, 1, 3)


def test_nothing_changed_leaves_the_ratio_undefined_with_the_reason():
    runs = {0: {"unsteered": answers(BEFORE), "s": answers(BEFORE)}}
    row = result_table("e", runs, n_resamples=50).query("method == 's'").iloc[0]
    assert pd.isna(row["ser"]) and "ser undefined" in row["reason"] and row["status"] == "ok"
    most = 1 - 0.025 ** (1 / 8)  # of eight answers
    assert (row["change"], row["change_low"], row["change_high"]) == pytest.approx((0, -most, most))


def test_undefined_arm_has_a_reason_and_no_number():
    gone = answers([None] * 8, "undefined", "no successful sample", ())
    runs = {seed: {"unsteered": answers(BEFORE), "s": gone} for seed in (0, 1)}
    row = result_table("e", runs, n_resamples=50).query("method == 's' and seed == 'all'").iloc[0]
    assert row["status"] == "undefined" and row["reason"] == "no successful sample"
    assert pd.isna(row["accuracy"]) and pd.isna(row["ser"]) and row["baseline_accuracy"] == 0.5
    assert (row["n"], row["n_missing"], row["seeds"]) == (0, 16, "0 1")


def test_a_seed_without_answers_is_left_out_and_named():
    gone = answers([None] * 8, "undefined", "no layer beats", ())
    runs = {
        0: {"unsteered": answers(BEFORE), "s": answers(AFTER)},
        1: {"unsteered": answers(BEFORE), "s": gone},
        7: {"unsteered": answers(BEFORE), "s": answers(AFTER)},
    }
    table = result_table("e", runs, n_resamples=50).query("method == 's'")
    row = table.query("seed == 'all'").iloc[0]
    assert row["status"] == "ok" and row["reason"] == "undefined under seed 1: no layer beats"
    assert (row["n_seeds"], row["seeds"], row["n"], row["n_missing"]) == (2, "0 7", 16, 8)
    assert row["accuracy"] == 0.75 and row["accuracy_std"] == 0
    # Over all examples: what is not steered keeps its answer.
    assert row["accuracy_all"] == pytest.approx((0.75 + 0.5 + 0.75) / 3)
    assert table.query("seed == '1'").iloc[0]["status"] == "undefined"
    found = measure(cell("accuracy"), "e", runs, n_resamples=50)
    assert found["measured"] == 75.0 and (found["n_seeds"], found["seeds"]) == (2, "0 7")
    assert "seed 1" in found["reason"] and found["status"] == "ok"


def test_an_example_without_an_answer_keeps_the_unsteered_one_in_the_whole():
    after = answers(AFTER).astype(object)
    after.loc[[0, 1], ["success", "status", "reason"]] = [None, "undefined", "infeasible"]
    runs = {0: {"unsteered": answers(BEFORE), "s": after}}
    row = result_table("e", runs, n_resamples=50).query("method == 's' and seed == '0'").iloc[0]
    assert row["accuracy"] == pytest.approx(5 / 6) and row["accuracy_all"] == pytest.approx(7 / 8)
    assert row["reason"] == "2 x infeasible"


@pytest.mark.parametrize(("more", "ser"), [(3, 0.0), (-2, 1.0)])
def test_changes_of_one_sign_leave_the_ratio_unsure(more, ser):
    flipped = list(BEFORE)
    for i in [i for i, s in enumerate(BEFORE) if s == (more < 0)][: abs(more)]:
        flipped[i] = not flipped[i]
    run = {"unsteered": answers(BEFORE), "s": answers(flipped)}
    once, thrice = row({0: run}), row({0: run, 1: run, 2: run})
    exact = binomtest(int(ser) * abs(more), abs(more)).proportion_ci(0.95)
    for found in (once, thrice):  # the same examples under another seed are no further evidence
        assert found["ser"] == ser
        assert (found["ser_low"], found["ser_high"]) == pytest.approx((exact.low, exact.high))


def test_unpaired_baselines_are_errors():
    before, after = answers(BEFORE), answers(AFTER)
    with pytest.raises(DataError, match="same examples"):
        paired(before, after.iloc[1:])
    with pytest.raises(DataError, match="different prompts"):
        paired(before, after.assign(prompt="other"))
    with pytest.raises(DataError, match="more than once"):
        paired(pd.concat([before, before.iloc[:1]]), after)
    with pytest.raises(DataError, match="unsteered"):
        result_table("e", {0: {"s": after}}, n_resamples=10)


def test_page_shows_what_changed_and_escapes_it():
    after = answers(AFTER)
    after.loc[1, "text"] = "<script>B</script>"
    after.loc[0, "text"] = "A, in other words"
    pairs = paired(answers(BEFORE), after)
    same = paired(answers(BEFORE), answers(BEFORE))
    gone = paired(answers(BEFORE), answers([None] * 8, "undefined", "no", ()).assign(text=None))
    methods = {"s": pairs, "t": pairs, "same": same, "gone": gone}
    page = changes_page("changes", {3: methods, 4: {"s": pairs}})
    # A row for each seed and example, with its prompt once, whatever the number of methods.
    assert page.count("<tr>") == 1 + 2 * 4 and page.count(">p1<") == 2
    assert "<script>B" not in page and "&lt;script&gt;B" in page
    assert page.count("repaired</span>") == 9 and page.count("broken</span>") == 3
    assert "seed 4, s: 1 broken, 3 repaired, 1 reworded" in page
    assert ">p0<" not in page and "gone:" not in page


@pytest.fixture
def run():
    rng = np.random.default_rng(0)
    before = rng.random(200) < 0.5
    after = np.where(rng.random(200) < 0.2, rng.random(200) < 0.8, before)
    sides = {"unsteered": answers(before), "s": answers(after)}
    return {
        name: side.assign(
            gold="comply", answer=side["success"].map({True: "comply", False: "refuse"})
        )
        for name, side in sides.items()
    }


def row(runs):
    table = result_table("e", runs, n_resamples=1000)
    return table.query("method == 's' and seed == 'all'").iloc[0]


def test_the_same_answers_under_another_seed_are_no_further_evidence(run):
    once, thrice = row({0: run}), row({0: run, 1: run, 2: run})
    for name in ("accuracy", "change", "ser"):
        assert thrice[name] == pytest.approx(once[name])
        width = once[f"{name}_high"] - once[f"{name}_low"]
        assert thrice[f"{name}_high"] - thrice[f"{name}_low"] == pytest.approx(width, rel=0.1)
    assert thrice["negative"] == 3 * once["negative"]
    assert thrice["mcnemar_p"] == pytest.approx(once["mcnemar_p"])
    assert 0 <= once["mcnemar_p"] <= 1


def test_a_paired_change_is_surer_than_the_accuracy(run):
    found = row({0: run})
    assert found["change"] == pytest.approx(found["accuracy"] - found["baseline_accuracy"])
    change, accuracy = (found[f"{n}_high"] - found[f"{n}_low"] for n in ("change", "accuracy"))
    assert change < accuracy


def cell(metric):
    return Cell("scale", "scale_1", "c", 1.0, None, "mmlu_scaled", "s", metric)


def test_a_cell_of_changes_has_the_interval_of_the_change(run):
    found, table = measure(cell("accuracy_change"), "e", {0: run}, n_resamples=1000), row({0: run})
    assert found["measured"] == pytest.approx(100 * table["change"])
    assert found["measured_low"] == pytest.approx(100 * table["change_low"])


def test_over_refusal_counts_no_repaired_refusal_as_a_side_effect(run):
    found = measure(cell("over_refusal"), "e", {0: run}, n_resamples=50)
    refused = 1 - run["s"]["success"].mean()
    assert found["measured"] == pytest.approx(100 * refused)
    assert found["negative"] is None and found["positive"] is None


def test_answers_without_a_word_are_counted_on_either_side(run):
    before, after = run["unsteered"].copy(), run["s"].copy()
    before.loc[[0, 1, 2], "text"] = ["", " \n", "..."]
    after.loc[[1, 5], "text"] = ["", "…"]
    sides = {"unsteered": before, "s": after}
    table = result_table("e", {0: sides, 1: sides}, n_resamples=20)
    table = table.set_index(["method", "seed"])[["n_empty", "baseline_n_empty"]]
    assert table.loc[("s", "0")].tolist() == [2, 3] and table.loc[("s", "all")].tolist() == [4, 6]
    assert table.loc[("unsteered", "0")].tolist() == [3, 3]
    gone = after.assign(status="undefined", success=None, text=None)
    row = result_table("e", {0: {**sides, "s": gone}}, n_resamples=20).iloc[-1]
    assert pd.isna(row["n_empty"]) and row["baseline_n_empty"] == 3


def test_an_empty_answer_is_no_refusal_in_the_rate_of_refusals(run):
    answered = run["unsteered"]["success"].map({True: "comply", False: "refuse"})
    before = run["unsteered"].assign(answer=answered)
    blank = before.assign(success=False, answer=None, text="")
    found = measure(
        cell("over_refusal"), "e", {0: {"unsteered": before, "s": blank}}, n_resamples=9
    )
    assert found["measured"] == 0.0


def test_the_page_shows_an_empty_answer_as_empty():
    after = answers(AFTER)
    after.loc[1, "text"] = " "
    page = changes_page("changes", {0: {"s": paired(answers(BEFORE), after)}})
    assert page.count("(empty)") == 1


def test_a_note_on_answered_rows_is_told(run):
    noted = {**run, "s": run["s"].assign(reason="a weak probe")}
    assert "200 x a weak probe" in row({0: noted})["reason"]


SUGGESTION = "try chat_template: true"
LETTERS = "ABCD"


def option_answers(said, golds, n_options=4, layers=()):
    """Answers of an option task; a text that is no letter is unreadable."""
    letters = [text if n_options and text in set(LETTERS) else None for text in said]
    return answers([a == g for a, g in zip(said, golds, strict=True)], layers=layers).assign(
        gold=list(golds),
        n_options=n_options,
        text=list(said),
        answer=letters if n_options else list(said),
        strength="",
        norm=float(len(layers)),
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
    return {
        "unsteered": option_answers(before, golds),
        "corrsteer_s": option_answers(after, golds, layers=[2]),
    }


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
    for claim in ("raises", "lowers", "is not shown to change"):
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
        (text,) = baseline_concerns(
            paired(option_answers(said, golds), option_answers(able(golds), golds))
        )
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


def test_a_model_that_complies_with_all_is_no_baseline_where_some_should_be_refused():
    golds = ["refuse"] * 56 + ["comply"] * 94
    table = option_answers(["comply"] * 150, golds, n_options=None)
    runs = {0: {"unsteered": table, "corrsteer_s": table}}
    row = row_of(runs)
    assert row["constant_accuracy"] == pytest.approx(94 / 150) and pd.isna(row["chance"])
    assert "not shown to be better than always answering 'comply' (0.627" in row["warnings"]
    assert "100% of the steered answers are 'comply'" in row["warnings"]
    told = golds[:40] + ["comply"] * 110  # refuses most of what it should
    table = option_answers(told, golds, n_options=None)
    assert row_of({0: {"unsteered": table, "corrsteer_s": table}})["warnings"] == ""


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


def test_a_few_repaired_questions_are_not_more_evidence_under_more_seeds():
    """4 of 200 repaired, none lost: p = 0.125 under one seed, and under three of them."""
    before = np.zeros(200, dtype=bool)
    after = before.copy()
    after[:4] = True
    run = {"unsteered": answers(before), "s": answers(after)}
    assert row({0: run})["mcnemar_p"] == row({0: run, 1: run, 2: run})["mcnemar_p"] == 0.125
