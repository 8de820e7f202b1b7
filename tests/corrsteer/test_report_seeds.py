"""What several seeds over the same examples can say, and what they cannot."""

import numpy as np
import pandas as pd
import pytest

from steering_core.corrsteer.cells import measure
from steering_core.corrsteer.published import Cell
from steering_core.corrsteer.report import result_table


def answers(success, gold="comply", reason=""):
    n = len(success)
    return pd.DataFrame(
        {
            "example_id": [f"t:{i}" for i in range(n)],
            "prompt": "p",
            "gold": gold,
            "text": "x",
            "answer": "x",
            "success": list(success),
            "status": "ok",
            "reason": reason,
            "layers": [[3]] * n,
        }
    )


@pytest.fixture
def run():
    rng = np.random.default_rng(0)
    before = rng.random(200) < 0.5
    after = np.where(rng.random(200) < 0.2, rng.random(200) < 0.8, before)
    return {"unsteered": answers(before), "s": answers(after)}


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
    assert (0 <= once["mcnemar_p"] <= 1 and thrice["mcnemar_p"] is None) or np.isnan(
        thrice["mcnemar_p"]
    )


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


def test_a_note_on_answered_rows_is_told(run):
    noted = {**run, "s": run["s"].assign(reason="a weak probe")}
    assert "200 x a weak probe" in row({0: noted})["reason"]
