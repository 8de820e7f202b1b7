"""guards.csv: what guards cost and save, equal by hand to the solutions and texts behind it."""

import numpy as np
import pandas as pd
import pytest

from steering_core.tables.columns import column_names
from steering_core.tables.guards import guard_table

BOOT = {"seed": 0, "n_resamples": 200}
PROMPTS = ["p0", "p1", "p2", "p3"]


def guard_rows():
    """One guard at one strength: two prompts at the bound, one inside, one without a solution."""
    return pd.DataFrame(
        {
            "method": "held",
            "strength_index": 0,
            "strength_name": "tau",
            "strength": 2.0,
            "tau": 2.0,
            "lam": 1.0,
            "epsilon": np.nan,
            "example_id": [*PROMPTS, "test row"],
            "guard": "component 1",
            "kappa": 0.5,
            "status": ["optimal", "optimal", "optimal", "infeasible", "optimal"],
            "blocking": [False, False, False, True, False],
            "shift": [0.5, -0.5, 0.2, np.nan, 9.0],
            "shift_unguarded": [1.0, -2.0, 0.2, 4.0, 9.0],
            "price": [0.3, 0.6, 0.0, np.nan, 9.0],
            "l0": [5.0, 7.0, 3.0, np.nan, 9.0],
            "l0_unguarded": [4.0, 4.0, 3.0, 6.0, 9.0],
            "residual_norm": [2.0, 3.0, 1.0, np.nan, 9.0],
            "residual_norm_unguarded": [1.5, 2.0, 1.0, 3.0, 9.0],
        }
    )


def texts():
    """Texts of the three prompts with a solution, and of all four without guards."""
    held = {"method": "held", "kl_sum": [4.0, 6.0, 2.0, np.nan], "judged": [1.0, 0.0, 1.0, np.nan]}
    free = {"method": "free", "kl_sum": [2.0, 2.0, 2.0, 8.0], "judged": [1.0, 1.0, 1.0, 1.0]}
    frames = [
        pd.DataFrame({**one, "strength_index": 0, "example_id": PROMPTS, "draw": 0})
        for one in (held, free)
    ]
    frames[0]["n_tokens"], frames[1]["n_tokens"] = [2, 2, 2, 0], [2, 2, 2, 2]
    frames += [frame.iloc[:1].assign(example_id="validation", kl_sum=99.0) for frame in frames]
    return pd.concat(frames, ignore_index=True)


def test_costs_and_savings_are_those_of_the_same_prompts():
    [row] = guard_table("e", guard_rows(), texts(), {"held": "free"}, PROMPTS, **BOOT).to_dict(
        "records"
    )
    assert (row["n_prompts"], row["n_solved"], row["n_blocked"]) == (4, 3, 1)
    assert row["bound_rate"] == pytest.approx(2 / 3)
    assert row["shift_mean"] == pytest.approx(0.4)
    assert row["shift_unguarded_mean"] == pytest.approx(3.2 / 3)
    assert row["price_mean"] == pytest.approx(0.3)
    assert (row["l0_mean"], row["l0_change"]) == pytest.approx((5.0, 4 / 3))
    assert row["residual_norm_change"] == pytest.approx(0.5)
    assert (row["unguarded_method"], row["n_texts"]) == ("free", 3)
    assert (row["kl_mean"], row["kl_unguarded_mean"], row["kl_change"]) == pytest.approx((2, 1, 1))
    assert row["classifier_rate_change"] == pytest.approx(-1 / 3)
    assert row["kl_change_ci_low"] <= row["kl_change"] <= row["kl_change_ci_high"]


def test_a_text_that_the_judge_refuses_to_rate_is_in_no_rate():
    rated, some = texts(), texts()
    some.loc[some["method"].eq("free") & some["example_id"].eq("p1"), "judged"] = np.nan
    tables = [
        guard_table("e", guard_rows(), made, {"held": "free"}, PROMPTS, **BOOT).iloc[0]
        for made in (rated, some)
    ]
    assert tables[0]["classifier_rate_change"] == pytest.approx(-1 / 3)
    assert tables[1]["classifier_rate_change"] == 0 and tables[1]["classifier_rate_mean"] == 1
    assert tables[0]["kl_change"] == tables[1]["kl_change"] and tables[1]["n_texts"] == 3


def test_a_guard_that_binds_always_or_never_is_not_sure_to():
    rows = guard_rows()
    low, high = 0.025 ** (1 / 3), 1 - 0.025 ** (1 / 3)  # of three prompts with a solution
    for price, ends in ((0.5, (low, 1.0)), (0.0, (0.0, high))):
        same = rows.assign(price=price, shift=0.5)
        [row] = guard_table("e", same, texts(), {"held": None}, PROMPTS, **BOOT).to_dict("records")
        assert (row["bound_ci_low"], row["bound_ci_high"]) == pytest.approx(ends)


def test_without_the_same_program_unguarded_no_texts_are_compared():
    [row] = guard_table("e", guard_rows(), texts(), {"held": None}, PROMPTS, **BOOT).to_dict(
        "records"
    )
    assert row["n_texts"] == 0 and np.isnan(row["kl_mean"]) and np.isnan(row["kl_change"])
    assert pd.isna(row["unguarded_method"]) and row["l0_change"] > 0


def test_without_guards_the_table_has_its_columns_and_no_rows():
    table = guard_table("e", None, texts(), {}, PROMPTS, **BOOT)
    assert table.empty and list(table) == column_names("guards")
