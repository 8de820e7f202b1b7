"""Rows of pareto.csv against numbers worked out by hand."""

import io
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from steering_core.config.schema import Settings
from steering_core.tables.caveats import judge_warnings, probe_warnings
from steering_core.tables.columns import column_names, validate_table
from steering_core.tables.measured import Measured
from steering_core.tables.pareto import Subject, pareto_table

METHODS = ["no_steering", "caa_mean_diff", "convex_optimal"]
SETTINGS = Settings(methods=METHODS, bootstrap_resamples=200)
ORIGIN = ("sha256:0123456789ab", "sha256:123456789e01")
SUBJECT = Subject("e", "org/model", "sst2", 7, [], *ORIGIN)
TEST, PROMPTS = ["t0", "t1", "t2", "t3"], ["p0", "p1"]

#: (method, strength_index): probe logits, evaluation probe logits, sizes of test rows and prompts,
#: statuses, and of each text kl_sum, base_nll_sum, n_tokens, judged.
BASE = [-2.0, -1.0, 0.0, 3.0]
EVAL_BASE = [-1.0, 1.0, -3.0, 2.0]
NAN = float("nan")


def solutions(method: str, index: int, name: str, strength: float, **columns) -> pd.DataFrame:
    ids = [*TEST, *PROMPTS]
    frame = pd.DataFrame({"example_id": ids}).assign(
        method=method,
        strength_index=index,
        strength_name=name,
        strength=strength,
        tau=NAN,
        lam=NAN,
        epsilon=NAN,
        tau_model=NAN,
        lam_model=NAN,
        epsilon_model=NAN,
        status="fixed",
        l0=NAN,
        l1=NAN,
        residual_norm=0.0,
    )
    return frame.assign(**columns)


def effects(method: str, index: int, steered: list, eval_steered: list) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "method": method,
            "strength_index": index,
            "example_id": TEST,
            "probe_base": BASE,
            "probe_steered": steered,
            "eval_probe_base": EVAL_BASE,
            "eval_probe_steered": eval_steered,
        }
    )


def texts(method: str, index: int, kl: list, nll: list, tokens: list, judged: list):
    return pd.DataFrame(
        {
            "method": method,
            "strength_index": index,
            "example_id": PROMPTS,
            "kl_sum": kl,
            "base_nll_sum": nll,
            "n_tokens": tokens,
            "judged": judged,
            "empty": np.where(np.isnan(judged), np.nan, 0.0),
        }
    )


def measured() -> Measured:
    infeasible = ["optimal", "already_satisfied", "infeasible", "optimal", "optimal", "infeasible"]
    nothing = ["infeasible"] * 6
    size = {"l0": [3, 0, NAN, 5, 9, NAN], "l1": [1.0, 0.0, NAN, 2.0, 9.0, NAN]}
    return Measured(
        solutions=pd.concat(
            [
                solutions("no_steering", 0, "alpha", 0.0, l0=0.0, l1=0.0),
                solutions("caa_mean_diff", 0, "alpha", 0.5, residual_norm=4.0),
                solutions(
                    "convex_optimal",
                    0,
                    "epsilon at tau=0.5",
                    2.0,
                    tau=0.5,
                    epsilon=2.0,
                    status=infeasible,
                    residual_norm=[1.5, 0.0, NAN, 2.0, 9.0, NAN],
                    **size,
                ),
                solutions(
                    "convex_optimal",
                    1,
                    "epsilon at tau=0.5",
                    0.1,
                    tau=0.5,
                    epsilon=0.1,
                    status=nothing,
                    residual_norm=NAN,
                ),
                solutions(
                    "convex_optimal",
                    2,
                    "epsilon at tau=0.5",
                    9.0,
                    tau=0.5,
                    epsilon=9.0,
                    status="optimal",
                    residual_norm=3.0,
                    l0=2.0,
                    l1=3.0,
                ),
            ],
            ignore_index=True,
        ),
        probe_effects=pd.concat(
            [
                effects("no_steering", 0, BASE, EVAL_BASE),
                effects("caa_mean_diff", 0, [0.0, 1.0, 1.0, 4.0], [-0.5, 2.0, 1.0, 3.0]),
                effects("convex_optimal", 0, [0.5, 0.5, NAN, 3.5], [0.5, 0.5, NAN, 3.5]),
                effects("convex_optimal", 1, [NAN] * 4, [NAN] * 4),
                effects("convex_optimal", 2, [0.5, 0.5, 0.5, 3.0], [0.5, 0.5, -0.5, 3.0]),
            ],
            ignore_index=True,
        ),
        texts=pd.concat(
            [
                texts("no_steering", 0, [0.0, 0.0], [20.0, 10.0], [10, 10], [0, 1]),
                texts("caa_mean_diff", 0, [5.0, 12.0], [30.0, 30.0], [10, 4], [1, 1]),
                texts("convex_optimal", 0, [2.0, NAN], [24.0, NAN], [8, 0], [1, NAN]),
                texts("convex_optimal", 1, [NAN, NAN], [NAN, NAN], [0, 0], [NAN, NAN]),
                texts("convex_optimal", 2, [9.0, 9.0], [24.0, 24.0], [3, 3], [1, 1]),
            ],
            ignore_index=True,
        ),
    )


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return pareto_table(SUBJECT, measured(), SETTINGS)


@pytest.fixture
def rows(table: pd.DataFrame) -> list[pd.Series]:
    return [row for _, row in table.iterrows()]


def test_one_valid_row_per_method_and_strength(table: pd.DataFrame):
    validate_table(table, "pareto")
    assert list(table.columns) == column_names("pareto")
    assert list(zip(table["method"], table["strength"], strict=True)) == [
        ("no_steering", 0.0),
        ("caa_mean_diff", 0.5),
        ("convex_optimal", 2.0),
        ("convex_optimal", 0.1),
        ("convex_optimal", 9.0),
    ]
    about = table[["experiment", "model", "task", "layer", "n_examples", "n_prompts"]]
    assert about.drop_duplicates().values.tolist() == [["e", "org/model", "sst2", 7, 4, 2]]


def test_no_steering(rows: list[pd.Series]):
    row = rows[0]
    assert row["kl_mean"] == row["kl_ci_low"] == row["kl_ci_high"] == 0.0
    assert row["residual_norm_mean"] == row["l0_mean"] == row["l1_mean"] == 0.0
    assert row["probe_score_base"] == row["probe_score_steered"] == 0.0
    assert row["flip_rate"] == row["eval_flip_rate"] == 0.0
    assert row["perplexity_base"] == row["perplexity_steered"] == pytest.approx(math.exp(1.5))
    assert row["classifier_rate_base"] == row["classifier_rate_steered"] == 0.5
    assert np.isnan(row["feasible_fraction"]) and np.isnan(row["tau"])


def test_a_fixed_direction(rows: list[pd.Series]):
    row = rows[1]
    assert row["residual_norm_mean"] == row["residual_norm_ci_high"] == 4.0
    assert np.isnan(row["l0_mean"]) and np.isnan(row["l1_mean"])
    assert row["probe_score_steered"] == 1.5
    assert row["eval_probe_score_base"] == -0.25
    assert row["eval_probe_score_steered"] == 1.375
    # Outside before: t0, t1, t2 (a logit of 0 is outside). Inside after: t1, t2.
    assert row["flip_rate"] == pytest.approx(2 / 3)
    # By the other probe t0 and t2 are outside; t2 comes inside.
    assert row["eval_flip_rate"] == 0.5
    # A mean over texts of means over tokens, not a sum over positions.
    assert row["kl_mean"] == pytest.approx((5 / 10 + 12 / 4) / 2)
    assert row["kl_ci_low"] == pytest.approx(0.5) and row["kl_ci_high"] == pytest.approx(3.0)
    assert row["perplexity_base"] == pytest.approx(math.exp(30 / 20))
    assert row["perplexity_steered"] == pytest.approx(math.exp(60 / 14))
    assert row["classifier_rate_steered"] == 1.0


def test_an_unsolved_input_counts_as_not_flipped_and_is_in_no_mean(rows: list[pd.Series]):
    row = rows[2]
    assert row["residual_norm_mean"] == pytest.approx(3.5 / 3)  # t0, t1, t3; prompts do not count
    assert row["l0_mean"] == pytest.approx(8 / 3)
    assert row["l1_mean"] == pytest.approx(1.0)
    assert row["probe_score_steered"] == pytest.approx(1.5)
    assert row["flip_rate"] == pytest.approx(2 / 3)  # of t0, t1, t2 the last has no solution
    assert row["eval_flip_rate"] == 0.5  # of t0 and t2
    assert row["kl_mean"] == 0.25  # of the one text there is
    assert row["perplexity_steered"] == pytest.approx(math.exp(3))
    assert row["classifier_rate_steered"] == 1.0
    assert row["feasible_fraction"] == pytest.approx(4 / 6)
    assert row["warnings"] == "2 of 6 inputs infeasible"
    assert (row["tau"], row["epsilon"]) == (0.5, 2.0)


def test_before_and_after_are_over_the_same_inputs(rows: list[pd.Series]):
    row = rows[2]  # t2 and p1 have no solution
    assert row["probe_score_base"] == pytest.approx((-2 - 1 + 3) / 3)
    assert row["eval_probe_score_base"] == pytest.approx((-1 + 1 + 2) / 3)
    assert row["perplexity_base"] == pytest.approx(math.exp(20 / 10))
    assert row["classifier_rate_base"] == 0.0  # of p0; p1 is in the target class unsteered
    before = ["probe_score_base", "eval_probe_score_base", "perplexity_base"]
    assert rows[3][[*before, "classifier_rate_base"]].isna().all()


def test_a_budget_met_only_by_satisfied_rows_has_no_effect():
    """Nothing is added, so nothing may seem to change: the rows left start beyond the margin."""
    changed = measured()
    satisfied = changed.probe_effects["example_id"] == "t3"
    last = changed.probe_effects["strength_index"] == 2
    for probe in ("probe", "eval_probe"):
        kept = changed.probe_effects[f"{probe}_base"].where(satisfied)
        changed.probe_effects.loc[last, f"{probe}_steered"] = kept
    row = pareto_table(SUBJECT, changed, SETTINGS).iloc[4]
    assert row["probe_score_base"] == row["probe_score_steered"] == 3.0
    assert row["eval_probe_score_base"] == row["eval_probe_score_steered"] == 2.0


def test_counts_are_the_denominators(table: pd.DataFrame):
    counts = ["n_examples", "n_solved", "n_outside", "n_outside_eval", "n_outside_eval_solved"]
    counts += ["n_prompts", "n_texts", "n_empty_base", "n_empty"]
    assert table[counts].values.tolist() == [
        [4, 4, 3, 2, 2, 2, 2, 0, 0],
        [4, 4, 3, 2, 2, 2, 2, 0, 0],
        [4, 3, 3, 2, 1, 2, 1, 0, 0],
        [4, 0, 3, 2, 0, 2, 0, 0, 0],
        [4, 4, 3, 2, 2, 2, 2, 0, 0],
    ]


def test_texts_without_a_word_are_counted_and_warned_of():
    changed = measured()
    blank = changed.texts["example_id"].eq("p1") & changed.texts["method"].ne("convex_optimal")
    changed.texts.loc[blank, ["empty", "judged"]] = 1.0, 0.0
    table = pareto_table(SUBJECT, changed, SETTINGS)
    assert table["n_empty"].tolist() == [1, 1, 0, 0, 0]
    # Of the prompts that the method continued: the third row has p0 alone, the fourth none.
    assert table["n_empty_base"].tolist() == [1, 1, 0, 0, 1]
    assert table["warnings"][1] == "texts without a word, which are in no class: 1 of 2"
    assert "without a word" not in table["warnings"][2]


def test_texts_without_a_word_are_counted_among_all_draws():
    changed = measured()
    changed.texts["empty"] = changed.texts["empty"].where(changed.texts["example_id"].ne("p1"), 3.0)
    table = pareto_table(SUBJECT, changed, SETTINGS.model_copy(update={"draws": 4}))
    assert table["n_empty"][1] == 3
    assert table["warnings"][1].startswith("texts without a word, which are in no class: 3 of 8")


def test_a_row_with_a_lost_text_gets_a_warning_and_is_not_on_the_frontier():
    """Its logits were not finite: the status of the solution says nothing of it."""
    changed = measured()
    lost = (changed.texts["method"] == "caa_mean_diff") & (changed.texts["example_id"] == "p1")
    columns = ["kl_sum", "base_nll_sum", "judged", "empty"]
    rows = changed.texts.assign(n_tokens=changed.texts["n_tokens"].where(~lost, 0))
    rows[columns] = rows[columns].where(~lost)
    table = pareto_table(SUBJECT, replace(changed, texts=rows), SETTINGS).set_index("method")
    row = table.loc["caa_mean_diff"]
    assert (row["n_prompts"], row["n_texts"]) == (2, 1)
    assert row["kl_mean"] == pytest.approx(0.5)
    assert pd.isna(row["on_frontier"]) and pd.isna(row["frontier_probability"])
    assert "1 of 2 prompts have no text or no KL: logits NaN or infinite" in row["warnings"]
    others = table.drop("caa_mean_diff")["warnings"].fillna("")
    assert not others.str.contains("no text").any()


def test_sizes_over_the_rows_of_the_flip_rate_and_over_the_prompts(rows: list[pd.Series]):
    row = rows[2]
    # By the evaluation probe t0 and t2 are outside, and t2 has no solution.
    assert row["residual_norm_outside_eval_mean"] == 1.5
    assert row["l0_outside_eval_mean"] == 3.0 and row["l1_outside_eval_mean"] == 1.0
    assert row["prompt_residual_norm_mean"] == row["prompt_l0_mean"] == 9.0  # of p0
    empty = ["residual_norm_outside_eval_mean", "l0_outside_eval_ci_low", "prompt_l0_mean"]
    assert rows[3][[*empty, "prompt_residual_norm_ci_high"]].isna().all()
    assert rows[1]["residual_norm_outside_eval_mean"] == rows[1]["prompt_residual_norm_mean"] == 4.0
    assert np.isnan(rows[1]["prompt_l0_mean"])


def test_feasible_fractions_of_either_population(rows: list[pd.Series]):
    names = [f"feasible_fraction{population}" for population in ("", "_examples", "_prompts")]
    assert rows[2][names].tolist() == pytest.approx([4 / 6, 3 / 4, 1 / 2])
    assert rows[3][names].tolist() == [0.0, 0.0, 0.0]
    assert rows[1][names].isna().all()
    assert rows[2]["feasible_ci_low"] < 4 / 6 < rows[2]["feasible_ci_high"]


def test_a_row_names_its_seed_configuration_and_code(table: pd.DataFrame):
    assert table["seed"].eq(0).all()
    assert (table["config_sha256"] == ORIGIN[0]).all() and (table["code_sha256"] == ORIGIN[1]).all()
    other = pareto_table(SUBJECT, measured(), SETTINGS.model_copy(update={"seed": 9}))
    both = pd.concat([table, other])
    validate_table(both, "pareto")  # two seeds stand side by side, also as CSV
    validate_table(pd.read_csv(io.StringIO(both.to_csv(index=False))), "pareto")


def test_every_mean_under_steering_has_an_interval(rows: list[pd.Series]):
    of = {"l0_ci": "l0_mean", "l1_ci": "l1_mean", "probe_score_ci": "probe_score_steered"}
    of |= {"eval_probe_score_ci": "eval_probe_score_steered"}
    for stem, mean in of.items():
        low, high = rows[2][[f"{stem}_low", f"{stem}_high"]]
        assert low < rows[2][mean] < high, stem
        assert rows[3][[f"{stem}_low", f"{stem}_high"]].isna().all(), stem
    assert rows[2]["l0_ci_low"] >= 0 and rows[2]["l0_ci_high"] <= 5  # of 3, 0 and 5


def test_an_infeasible_strength_has_empty_cells_not_zeros(rows: list[pd.Series]):
    row = rows[3]
    empty = ["residual_norm_mean", "l0_mean", "l1_mean", "probe_score_steered", "kl_mean"]
    empty += ["eval_probe_score_steered", "perplexity_steered", "classifier_rate_steered"]
    empty += ["kl_ci_low", "kl_ci_high", "perplexity_ci_low", "classifier_ci_high", "on_frontier"]
    assert pd.isna(row[empty]).all()
    assert row["flip_rate"] == row["eval_flip_rate"] == row["feasible_fraction"] == 0.0
    assert row["warnings"] == "6 of 6 inputs infeasible"


def test_frontier_is_for_rows_that_steer_every_prompt(rows: list[pd.Series]):
    # convex_optimal at 2.0 has the least KL at rate 1, but left two inputs alone.
    assert [row["on_frontier"] for row in rows[:2]] == [True, True]
    assert rows[2]["on_frontier"] is pd.NA
    assert rows[3]["on_frontier"] is pd.NA
    assert not rows[4]["on_frontier"]  # KL 3 at the same rate


def test_a_row_with_unsolved_test_rows_can_be_on_the_frontier():
    changed = measured()
    cheap = (changed.texts["method"] == "convex_optimal") & (changed.texts["strength_index"] == 2)
    changed.texts.loc[cheap, "kl_sum"] = 1e-3
    lost = (changed.solutions["strength_index"] == 2) & (changed.solutions["example_id"] == "t3")
    changed.solutions.loc[lost, "status"] = "infeasible"
    row = pareto_table(SUBJECT, changed, SETTINGS).iloc[4]
    assert row["feasible_fraction_prompts"] == 1 > row["feasible_fraction_examples"]
    assert row["on_frontier"]


def test_the_row_left_out_does_not_hide_another(table: pd.DataFrame):
    changed = measured()
    chosen = (changed.texts["method"] == "convex_optimal") & (changed.texts["strength_index"] == 0)
    changed.texts.loc[chosen, "kl_sum"] = 1e-9
    again = pareto_table(SUBJECT, changed, SETTINGS)
    assert again["on_frontier"].tolist()[:2] == table["on_frontier"].tolist()[:2] == [True, True]


def test_the_strength_is_selected_on_validation_prompts_alone():
    settings = SETTINGS.model_copy(update={"selection_kl": 5.0})
    changed = measured()
    validation = changed.texts.assign(example_id="v" + changed.texts["example_id"])
    # The one strength of convex_optimal that steers both validation prompts.
    whole = (validation["method"] == "convex_optimal") & (validation["strength_index"] == 2)
    validation.loc[whole, ["kl_sum", "n_tokens", "judged"]] = 2.0, 4, 1
    first = pareto_table(SUBJECT, replace(changed, validation_texts=validation), settings)
    assert first["selected"].tolist() == [True, True, False, False, True]
    assert first["validation_kl_mean"].tolist()[4] == 0.5
    assert first["validation_classifier_rate"].tolist()[:2] == [0.5, 1.0]
    assert pd.isna(first["validation_classifier_rate"][3])  # no validation prompt was steered
    cheap = pareto_table(SUBJECT, replace(changed, validation_texts=validation), SETTINGS)
    assert cheap["selected"].tolist() == [True, False, False, False, True]  # 1.75 is beyond 1
    # What is reported has no say.
    other = changed.texts.assign(judged=0.0, kl_sum=9.0)
    again = pareto_table(
        SUBJECT, replace(changed, texts=other, validation_texts=validation), settings
    )
    columns = [name for name in column_names("pareto") if "validation_" in name] + ["selected"]
    assert first["n_validation_texts"].tolist() == [2, 2, 1, 0, 2]
    low, high = first.loc[1, ["validation_kl_ci_low", "validation_kl_ci_high"]]
    assert low == pytest.approx(0.5) and high == pytest.approx(3.0)
    assert first.loc[0, "validation_classifier_ci_low"] == 0.0
    pd.testing.assert_frame_equal(again[columns], first[columns])
    assert not again["classifier_rate_steered"].equals(first["classifier_rate_steered"])
    # Nor has what is selected on in what is reported.
    without = pareto_table(SUBJECT, changed, settings)
    assert without[columns].isna().all(axis=None)
    pd.testing.assert_frame_equal(without.drop(columns=columns), first.drop(columns=columns))


@pytest.mark.parametrize(("judged", "helped"), [([1, 1], True), ([0, 1], False), ([0, 0], False)])
def test_a_selected_strength_that_does_not_beat_no_steering_gives_a_warning(judged, helped):
    settings = SETTINGS.model_copy(update={"selection_kl": 5.0})
    changed = measured()
    validation = changed.texts.assign(example_id="v" + changed.texts["example_id"])
    steered = validation["method"] == "caa_mean_diff"
    validation.loc[steered, "judged"] = judged  # no steering has one of two
    table = pareto_table(SUBJECT, replace(changed, validation_texts=validation), settings)
    assert table["selected"][1]
    said = "the selected strength did not help on validation: its target rate there is"
    assert (said in table["warnings"][1]) == (not helped)
    assert not table["warnings"][[0, 2, 3]].str.contains(said).any()


def test_a_flip_rate_without_candidates_is_empty():
    changed = measured()
    changed.probe_effects["eval_probe_base"] = 1.0
    again = pareto_table(SUBJECT, changed, SETTINGS)
    assert again[["eval_flip_rate", "eval_flip_ci_low", "eval_flip_ci_high"]].isna().all(axis=None)
    assert again["flip_rate"].notna().all()


def test_a_share_of_all_or_none_has_an_interval_of_some_width(rows: list[pd.Series]):
    row = rows[4]
    assert (row["flip_rate"], row["flip_ci_high"]) == (1.0, 1.0)
    assert row["flip_ci_low"] == pytest.approx(0.025 ** (1 / 3))  # of t0, t1 and t2
    assert (row["classifier_rate_steered"], row["classifier_ci_high"]) == (1.0, 1.0)
    assert row["classifier_ci_low"] == pytest.approx(0.025 ** (1 / 2))  # of two prompts
    none = rows[3]  # infeasible for all six inputs
    assert (none["feasible_fraction"], none["feasible_ci_low"]) == (0.0, 0.0)
    assert none["feasible_ci_high"] == pytest.approx(1 - 0.025 ** (1 / 6))


def test_csv_has_empty_cells_not_words_for_nothing(table: pd.DataFrame):
    text = table.to_csv(index=False)
    assert not {"nan", "None", "<NA>", "inf"} & set(text.replace("\n", ",").split(","))
    again = pd.read_csv(io.StringIO(text))
    assert list(again.columns) == column_names("pareto")
    assert again["on_frontier"].isna().sum() == 2


def test_seed_and_resamples_decide_the_intervals(table: pd.DataFrame):
    names = ["probe_score_steered", "kl_ci_low", "flip_ci_high", "perplexity_ci_high"]
    same = pareto_table(SUBJECT, measured(), SETTINGS)
    pd.testing.assert_frame_equal(same, table)
    other = pareto_table(SUBJECT, measured(), SETTINGS.model_copy(update={"seed": 9}))
    assert other[names[0]].equals(table[names[0]])
    assert (table["flip_ci_low"] <= table["flip_rate"]).all()
    assert (table["flip_rate"] <= table["flip_ci_high"]).all()


def report(at_chance: bool) -> dict:
    return {"accuracy": 0.512, "chance": 0.5, "n": 40, "at_chance": at_chance}


def test_a_probe_at_chance_is_warned_of_in_every_row():
    warnings = probe_warnings({"train": report(True), "evaluation": report(False)})
    assert warnings == [
        "the train probe is no better than chance on validation rows "
        "(accuracy 0.51, chance 0.50, n 40): see sweep.csv for a better layer "
        "(`layer: auto` takes the best), raise rows_per_class, or choose another label"
    ]
    assert probe_warnings({"train": report(False)}) == []
    subject = Subject("e", "m", "t", 7, warnings, *ORIGIN)
    table = pareto_table(subject, measured(), SETTINGS)
    assert table["warnings"].str.startswith(warnings[0]).all()
    assert table["warnings"].iloc[2] == f"{warnings[0]}; 2 of 6 inputs infeasible"


def test_a_task_without_a_judge_is_warned_of_and_why():
    (warning,) = judge_warnings(None)
    assert "shares the representation" in warning and "'Istanbul.'" in warning
    assert judge_warnings({"lexicon": "l.json"}) == []


@pytest.mark.parametrize(
    ("scores", "judged", "said"),
    [
        ([0.836, 0.8362, 0.5, None], [1, 1, 0, None], "same score (0.84)"),
        ([0.836, 0.8362, None, None], [1, 1, 0, 0], "same score (0.84)"),  # without a word
        ([0.9, 0.7, 0.2, 0.5], [1, 1, 0, 0], "every unsteered text in the target class"),
        ([0.9, 0.3, 0.9, 0.9], [1, 0, 1, 1], None),
        ([0.501, 0.499, 0.502, 0.498], [1, 0, 1, 0], None),
        ([0.5, 0.5, 0.5, 0.5], [0, 0, 0, 0], None),
    ],
)
def test_a_judge_that_cannot_tell_texts_apart_gives_a_warning(scores, judged, said):
    methods = ["no_steering", "no_steering", "qp_optimal", "qp_optimal"]
    texts = pd.DataFrame({"method": methods, "score": scores, "judged": judged}, dtype=object)
    texts[["score", "judged"]] = texts[["score", "judged"]].astype(float)
    warnings = judge_warnings({"lexicon": None}, texts)
    assert len(warnings) == (said is not None)
    assert said is None or said in warnings[0]


def test_where_something_is_added_and_where_it_is_needless():
    table = pareto_table(SUBJECT, measured(), SETTINGS).set_index(["method", "strength"])
    assert table.loc[("no_steering", 0.0), ["steered_share", "needless_rate"]].tolist() == [0, 0]
    assert table.loc[("caa_mean_diff", 0.5), ["steered_share", "needless_rate"]].tolist() == [1, 1]


def test_the_share_of_a_gate_is_over_the_positions_that_it_saw():
    found = measured()
    counts = {"steered_positions": [4, 8], "unsolved_positions": [0, 0], "added_positions": [1, 2]}
    gated = found.texts["method"] == "caa_mean_diff"
    both = found.texts.assign(**dict.fromkeys(counts, NAN))
    for name, values in counts.items():
        both.loc[gated, name] = values
    table = pareto_table(SUBJECT, replace(found, texts=both), SETTINGS)
    row = table.set_index("method").loc["caa_mean_diff"]
    assert row["steered_share"] == pytest.approx(3 / 12) and row["unsolved_positions"] == 0
    assert row["steered_share_ci_low"] <= row["steered_share"] <= row["steered_share_ci_high"]
