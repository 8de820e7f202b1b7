"""Paired differences to references, what could have been detected, and how far judges agree."""

import numpy as np
import pandas as pd
import pytest

from steering_core.tables.differences import (
    detectable,
    difference_table,
    judge_table,
    references,
)
from steering_core.tables.measured import of_prompts

BOOT = {"seed": 0, "n_resamples": 200}
DENSE = {"dense": "caa_contrastive", **BOOT}
METHODS = ["no_steering", "random_direction", "caa_mean_diff", "caa_contrastive", "qp_optimal"]


def pareto() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "method": METHODS,
            "strength_name": "alpha",
            "strength": [0.0, 1.0, 1.0, 1.0, 2.0],
            "tau": [np.nan] * 4 + [2.0],
            "selected": [True] * 5,
            "validation_classifier_rate": [0.2, 0.3, 0.6, 0.8, 0.9],
            "validation_kl_mean": [0.0, 0.1, 0.1, 0.2, 0.1],
        }
    )


def texts(n_prompts: int = 30, draws: int = 3, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    rows = []
    for number, method in enumerate(METHODS):
        for prompt in range(n_prompts):
            base = np.random.default_rng(prompt).random()
            for draw in range(draws):
                score = np.clip(base * 0.3 + 0.15 * number + 0.05 * rng.random(), 0, 1)
                rows.append((method, 0, f"p{prompt}", draw, 0.1 * number * 5, 1.0, 5, score))
    names = ["method", "strength_index", "example_id", "draw", "kl_sum", "base_nll_sum"]
    frame = pd.DataFrame(rows, columns=[*names, "n_tokens", "score"])
    frame = frame.assign(judged=(frame["score"] > 0.5) * 1.0, empty=0.0)
    return frame.assign(score_vader=1 - frame["score"], judged_vader=1 - frame["judged"])


def test_references_stand_at_their_selected_strengths():
    found = {one.name: one.method for one in references(pareto(), "caa_contrastive")}
    assert found == {
        "no_steering": "no_steering",
        "random_direction": "random_direction",
        "best_dense": "caa_contrastive",
    }


def test_without_validation_prompts_only_no_steering_is_a_reference():
    table = pareto().assign(selected=pd.array([pd.NA] * 5, dtype="boolean"))
    assert [one.name for one in references(table, "caa_contrastive")] == ["no_steering"]
    assert "best_dense" not in [one.name for one in references(pareto(), None)]


def test_differences_are_paired_by_prompt_and_equal_by_hand():
    made = texts()
    table = difference_table("x", made, pareto(), ["lexicon"], 1, **DENSE)
    row = table[(table["method"] == "qp_optimal") & (table["reference"] == "best_dense")].iloc[0]
    means = made.groupby(["method", "example_id"])[["score", "judged"]].mean()
    change = means.loc["qp_optimal"] - means.loc["caa_contrastive"]
    assert row["score_difference"] == pytest.approx(change["score"].mean())
    assert row["rate_difference"] == pytest.approx(change["judged"].mean())
    assert row["score_difference_ci_low"] <= row["score_difference"]
    assert row["kl_difference"] == pytest.approx(0.1)
    assert row["n_prompts"] == 30 and pd.isna(row["judges_agree"])
    assert not (table["method"] == "no_steering").any()


def test_the_kl_of_a_prompt_is_over_all_tokens_of_its_draws():
    """As in the tables ``pareto`` and ``matched``."""
    made = texts(n_prompts=4, draws=2)
    long = made["draw"] == 1
    made.loc[long, ["kl_sum", "n_tokens"]] = made.loc[long, ["kl_sum", "n_tokens"]] * [0.5, 9]
    table = difference_table("x", made, pareto(), ["lexicon"], 1, **DENSE)
    row = table[(table["method"] == "qp_optimal") & (table["reference"] == "no_steering")].iloc[0]
    whole = of_prompts(made[made["method"] == "qp_optimal"])
    assert row["kl_difference"] == pytest.approx((whole["kl_sum"] / whole["n_tokens"]).mean())
    assert row["kl_difference"] == pytest.approx((2 + 1) / (5 + 45))


def test_a_prompt_that_lacks_a_draw_is_left_out_of_the_pairs():
    made = texts(draws=3)
    lost = (made["method"] == "qp_optimal") & (made["example_id"] == "p3") & (made["draw"] == 1)
    made.loc[lost, ["score", "judged", "kl_sum", "base_nll_sum"]] = np.nan
    made.loc[lost, "n_tokens"] = 0
    table = difference_table("x", made, pareto(), ["lexicon", "vader"], 1, **DENSE)
    assert (table.loc[table["method"] == "qp_optimal", "n_prompts"] == 29).all()


def test_a_target_of_class_0_turns_the_score_round():
    made = texts()
    one = difference_table("x", made, pareto(), ["lexicon"], 1, **DENSE)
    other = difference_table("x", made, pareto(), ["lexicon"], 0, **DENSE)
    np.testing.assert_allclose(one["score_difference"], -other["score_difference"], atol=1e-12)


def test_a_method_that_changes_no_verdict_is_not_sure_to_change_none():
    made = texts()
    same = made["method"] == "qp_optimal"
    made.loc[same, "judged"] = made.loc[made["method"] == "no_steering", "judged"].to_numpy()
    table = difference_table("x", made, pareto(), ["lexicon"], 1, **DENSE)
    row = table[(table["method"] == "qp_optimal") & (table["reference"] == "no_steering")].iloc[0]
    ends = row[["rate_difference_ci_low", "rate_difference_ci_high"]].tolist()
    none = 1 - 0.025 ** (1 / 30)
    assert row["rate_difference"] == 0 and ends == pytest.approx([-none, none])
    assert np.isnan(row["rate_detectable"]) and row["score_detectable"] > 0


def test_judges_that_disagree_on_the_direction_are_reported():
    table = difference_table("x", texts(), pareto(), ["lexicon", "vader"], 1, **DENSE)
    clear = table[(table["method"] == "qp_optimal") & (table["reference"] == "no_steering")]
    assert clear["judge"].tolist() == ["lexicon", "vader"]
    assert clear["judges_agree"].tolist() == [False, False]


def test_a_text_that_is_missing_leaves_its_prompt_out_of_the_pairs():
    made = texts(draws=1)
    lost = (made["method"] == "qp_optimal") & (made["example_id"] == "p3")
    made.loc[lost, ["score", "judged", "kl_sum"]] = np.nan
    made.loc[lost, "n_tokens"] = 0
    table = difference_table("x", made, pareto(), ["lexicon"], 1, **DENSE)
    assert (table.loc[table["method"] == "qp_optimal", "n_prompts"] == 29).all()


def test_the_detectable_difference_has_the_power_it_names():
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(4000, 40))
    smallest = np.array([detectable(row) for row in draws[:50]]).mean()
    moved = draws + smallest
    error = moved.std(axis=1, ddof=1) / np.sqrt(40)
    found = np.abs(moved.mean(axis=1) / error) > 1.96
    assert found.mean() == pytest.approx(0.8, abs=0.04)
    assert detectable(draws[0, :1]) is None
    assert detectable(np.zeros(40)) is None  # no change is seen, not one of any size


def test_agreement_of_judges():
    table = judge_table("x", texts(), ["lexicon", "vader"], **BOOT)
    assert table["headline"].tolist() == [True, False]
    assert np.isnan(table["kappa"][0]) and table["kappa"][1] < 0
    assert table["rank_correlation"][1] == pytest.approx(-1)
    assert table["agreement"][1] == 0


def test_draws_of_a_prompt_become_one_row():
    made = texts(n_prompts=4, draws=3)
    joined = of_prompts(made)
    assert len(joined) == len(made) / 3
    one = joined.set_index(["method", "example_id"]).loc[("qp_optimal", "p1")]
    own = made[(made["method"] == "qp_optimal") & (made["example_id"] == "p1")]
    assert one["n_tokens"] == 15 and one["kl_sum"] == pytest.approx(own["kl_sum"].sum())
    assert one["judged"] == pytest.approx(own["judged"].mean())


def test_a_prompt_with_a_lost_draw_has_no_text():
    made = texts(n_prompts=2, draws=2)
    lost = (made["method"] == "qp_optimal") & (made["example_id"] == "p0") & (made["draw"] == 1)
    made.loc[lost, ["score", "judged", "kl_sum", "base_nll_sum"]] = np.nan
    made.loc[lost, "n_tokens"] = 0
    one = of_prompts(made).set_index(["method", "example_id"]).loc[("qp_optimal", "p0")]
    assert one["n_tokens"] == 0 and np.isnan(one["kl_sum"]) and np.isnan(one["judged"])


def test_a_single_draw_changes_no_number():
    made = texts(draws=1)
    pd.testing.assert_frame_equal(of_prompts(made), made.drop(columns="draw"))


def test_a_neutral_verdict_is_on_no_side():
    """A score of 0.5 puts a text in neither class; it does not agree with the class 0."""
    made = texts().assign(judged=0.0, score=0.1)
    sure = np.arange(len(made)) % 2 == 0
    made["score_vader"] = np.where(sure, 0.1, 0.5)
    made["judged_vader"] = 0.0
    table = judge_table("x", made, ["lexicon", "vader"], **BOOT)
    assert table["agreement"][1] == 1 and table["n_neutral"].tolist() == [0, int((~sure).sum())]
    unlike = judge_table("x", made.assign(judged=1.0, score=0.9), ["lexicon", "vader"], **BOOT)
    assert unlike["agreement"][1] == 0
    none = judge_table("x", made.assign(score_vader=0.5), ["lexicon", "vader"], **BOOT)
    assert np.isnan(none["agreement"][1]) and np.isnan(none["kappa"][1])
