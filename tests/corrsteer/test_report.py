"""The table of results and the page of changes."""

import numpy as np
import pandas as pd
import pytest

from steering_core.corrsteer.changes_page import changes_page
from steering_core.corrsteer.report import paired, result_table
from steering_core.errors import DataError


def answers(success, status="ok", reason="", layers=(2,)):
    n = len(success)
    return pd.DataFrame(
        {
            "example_id": [f"t:{i}" for i in range(n)],
            "prompt": [f"p{i}" for i in range(n)],
            "gold": "A",
            "text": ["A" if s else "B" for s in success],
            "answer": ["A" if s else "B" for s in success],
            "success": success,
            "status": status,
            "reason": reason,
            "layers": [list(layers)] * n,
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


def test_undefined_arm_has_a_reason_and_no_number():
    gone = answers([None] * 8, "undefined", "no successful sample", ())
    runs = {
        0: {"unsteered": answers(BEFORE), "s": answers(AFTER)},
        1: {"unsteered": answers(BEFORE), "s": gone},
    }
    row = result_table("e", runs, n_resamples=50).query("method == 's' and seed == 'all'").iloc[0]
    assert row["status"] == "undefined" and row["reason"] == "no successful sample"
    assert pd.isna(row["accuracy"]) and pd.isna(row["ser"]) and row["baseline_accuracy"] == 0.5


def test_unpaired_baselines_are_errors():
    before, after = answers(BEFORE), answers(AFTER)
    with pytest.raises(DataError, match="same examples"):
        paired(before, after.iloc[1:])
    with pytest.raises(DataError, match="other prompts"):
        paired(before, after.assign(prompt="other"))
    with pytest.raises(DataError, match="more than once"):
        paired(pd.concat([before, before.iloc[:1]]), after)
    with pytest.raises(DataError, match="unsteered"):
        result_table("e", {0: {"s": after}}, n_resamples=10)


def test_page_shows_what_changed_and_escapes_it():
    after = answers(AFTER)
    after.loc[1, "text"] = "<script>B</script>"
    page = changes_page("changes", {"s": paired(answers(BEFORE), after)})
    assert page.count("<tr>") == 1 + 4
    assert "<script>B" not in page and "&lt;script&gt;B" in page
    assert page.count("repaired</span>") == 3 and page.count("broken</span>") == 1
