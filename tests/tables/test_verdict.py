"""The summary and the verdict, from texts with known effects."""

import json

import numpy as np
import pandas as pd
import pytest
from matched_texts import METHODS, N, compared, measured, pareto, summary

from steering_core.tables.caveats import (
    INTERPOLATED,
    ON_REPORTED,
    warnings_cell,
    warnings_in,
)
from steering_core.tables.few_features import fewest_features
from steering_core.tables.verdict import Tables, spoken, verdict


@pytest.fixture(scope="module")
def tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    return compared(measured())


def test_the_summary_has_a_row_per_method_at_its_selected_strength(tables):
    found = summary(*tables).set_index("method")
    assert list(found.index) == ["no_steering", *METHODS]
    assert len(found.columns) == 1 + 9  # the experiment, and what answers the question
    row = found.loc["topk_features"]
    assert row["strength"] == "alpha=1" and row["effect"] == pytest.approx(0.2)
    assert row["effect_low"] < 0.2 < row["effect_high"] and row["kl"] == 0.02
    assert row["features"] == 10 and row["kl_ratio"] == pytest.approx(2.0)
    assert np.isnan(found.loc["single_feature", "kl_ratio"])
    assert found.loc["no_steering", "effect"] == 0


def said(found: dict, about: str) -> str:
    return " ".join(entry["text"] for entry in found["sentences"] if entry["about"] == about)


def test_a_difference_beyond_noise_is_called_one(tables):
    found = verdict(Tables(pareto(), tables[0]), summary(*tables))
    assert found["headline"].endswith("the dense direction is cheaper, beyond noise.")
    assert "topk_features with 10 features" in found["headline"]
    assert "For a change of 0.2, no method made of features comes within 1.5 times" in said(
        found, "sparsity"
    )
    assert "single_feature" in said(found, "reach") and "layer 7" in said(found, "setting")
    assert found["distrust"][0] == "the judge is blind" and found["fewest"] is None
    assert found["reference"]["method"] == "caa_mean_diff"
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert spoken(found)[0] == found["headline"] and "! the judge is blind" in spoken(found)


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.5, 3.0, "this run cannot tell the two apart"),
        (0.5, np.nan, "this run cannot tell the two apart"),
        (0.3, 0.9, "the sparse method is cheaper, beyond noise"),
        (1.1, np.nan, "the dense direction is cheaper, beyond noise"),
    ],
)
def test_the_interval_decides_the_wording(tables, low, high, words):
    matched = tables[0].copy()
    own = matched["method"] == "topk_features"
    matched.loc[own, ["kl_ratio_ci_low", "kl_ratio_ci_high"]] = [low, high]
    assert words in verdict(Tables(pareto(), matched), summary(*tables))["headline"]


def test_a_dense_direction_that_costs_less_than_the_best_is_named(tables):
    matched = tables[0].copy()
    own = matched["method"] == "topk_features"
    matched.loc[own, ["kl_ratio_ci_low", "kl_ratio_ci_high"]] = [0.3, 0.9]
    dense = matched[matched["method"] == "caa_mean_diff"].iloc[[0]]
    other = dense.assign(method="caa_repe", kl=dense["kl"] / 2, best_of_kind=False)
    found = verdict(Tables(pareto(), pd.concat([matched, other])), summary(*tables))
    assert "the sparse method is cheaper, beyond noise" in found["headline"]
    assert "does not say that it is cheaper than caa_repe, which costs" in found["headline"]


def test_a_call_below_the_first_strength_says_what_it_rests_on(tables):
    """A saturating effect makes a chord from the unsteered point too dear; no resample shows it."""
    matched = tables[0].copy()
    straight = "if the effect is proportional to √KL below the weakest strength that was run"
    found = verdict(Tables(pareto(), matched), summary(*tables))
    assert straight not in " ".join(spoken(found))
    matched.loc[matched["method"] == "caa_mean_diff", "warnings"] = INTERPOLATED
    found = verdict(Tables(pareto(), matched), summary(*tables))
    call = f"dense direction is cheaper by this interval, {straight}; weaker strengths would tell."
    assert found["headline"].endswith(call)
    assert f"cost more than the best dense direction, beyond noise, {straight}." in said(
        found, "cheapest"
    )
    own = matched["method"] == "topk_features"
    matched.loc[own, ["kl_ratio_ci_low", "kl_ratio_ci_high"]] = [0.5, 3.0]
    found = verdict(Tables(pareto(), matched), summary(*tables))
    assert found["headline"].endswith("this run cannot tell the two apart.")


def test_warnings_of_every_row_that_is_quoted_are_given_once(tables):
    matched = published(tables[0])
    matched["warnings"] = INTERPOLATED
    found = verdict(Tables(pareto(), matched), summary(*tables), factor=2.5)["distrust"]
    names = "caa_mean_diff, topk_features, qp_optimal with λ = 1"
    assert [text for text in found if INTERPOLATED in text] == [f"{names}: {INTERPOLATED}"]


def test_a_count_of_features_is_said_once(tables):
    matched = tables[0].copy()
    matched.loc[matched["method"] == "topk_features", "curve"] = "tau at features=10"
    made = pareto()
    own = made["method"] == "topk_features"
    made.loc[own, ["strength_name", "frontier_probability"]] = ["tau at features=10", 0.7]
    found = verdict(Tables(made, matched), summary(*tables))
    assert "topk_features with 10 features, costs" in found["headline"]
    everywhere, among = [text["text"] for text in found["sentences"] if text["about"] == "frontier"]
    assert everywhere.startswith("topk_features with features = 10 is not on the frontier")
    # without the dense directions nothing beats it
    start = "Among the strengths with at most 12 features, topk_features with features = 10 is on"
    assert among.startswith(start) and "at 2 of 2 strengths" in among
    made.loc[own, "on_frontier"] = True
    text = said(verdict(Tables(made, matched), summary(*tables)), "frontier")
    assert "on it in 70% of resamples of the prompts)" in text


def test_features_within_a_factor_and_whether_that_is_sure(tables):
    matched = tables[0].copy()
    assert fewest_features(matched, 1.5) is None
    assert fewest_features(matched, 2.5)["method"] == "topk_features"
    text = said(verdict(Tables(pareto(), matched), summary(*tables), factor=2.5), "sparsity")
    assert text.startswith("10 features come within 2.5 times")
    assert text.endswith("That is at most 2.5 times, beyond noise.")
    matched.loc[matched["method"] == "topk_features", "kl_ratio_ci_high"] = 4.0
    text = said(verdict(Tables(pareto(), matched), summary(*tables), factor=2.5), "sparsity")
    assert text.endswith("the interval does not rule out more.")


def on_reported(matched: pd.DataFrame) -> pd.DataFrame:
    """The same without validation prompts."""
    warned = [
        warnings_cell([*warnings_in(cell), f"there are none, {ON_REPORTED}"])
        for cell in matched["warnings"]
    ]
    return matched.assign(validation_kl=np.nan, warnings=warned)


def test_what_is_chosen_on_the_reported_prompts_is_not_called_cheaper(tables):
    matched = tables[0].copy()
    own = matched["method"] == "topk_features"
    matched.loc[own, ["kl_ratio", "kl_ratio_ci_low", "kl_ratio_ci_high"]] = [0.5, 0.3, 0.9]
    found = verdict(Tables(pareto(), on_reported(matched)), summary(*tables))
    assert found["headline"].endswith("so this run does not say which is cheaper.")
    for about in ("few", "sparsity"):
        text = said(found, about)
        assert "the least of several on these prompts it is biased downwards" in text
    assert said(found, "setting").endswith("is chosen on the reported prompts.")
    assert "beyond noise" not in said(found, "cheapest") + said(found, "few")


def test_without_a_curve_that_gets_there_on_validation_prompts_the_effect_chooses(tables):
    matched = tables[0].assign(validation_kl=np.nan)
    assert fewest_features(matched, 9.0) is None
    found = verdict(Tables(pareto(), matched), summary(*tables))
    assert said(found, "setting").endswith("the one with the largest effect there.")
    assert "no method made of features reaches it on the validation prompts" in said(
        found, "sparsity"
    )
    # The effect on other prompts chose the two, so a difference is one.
    assert found["headline"].endswith("the dense direction is cheaper, beyond noise.")


def test_what_chance_brings_near_on_reported_prompts_alone_is_not_near(tables):
    matched = tables[0].copy()
    own = matched["method"] == "topk_features"
    matched.loc[own, "kl_ratio"] = 1.0
    assert fewest_features(matched, 1.5) is None  # twice the KL on validation prompts
    # without validation prompts there is nothing else to choose on
    assert fewest_features(on_reported(matched), 1.5)["l0"] == 10
    matched.loc[own, ["validation_kl", "kl_ratio", "kl_ratio_ci_low"]] = [0.012, 2.0, 1.8]
    text = said(verdict(Tables(pareto(), matched), summary(*tables)), "sparsity")
    assert text.startswith(
        "10 features come within 1.5 times the KL of the best dense direction on"
    )
    assert text.endswith("That is more than 1.5 times, beyond noise.")


def test_the_sparsest_is_the_cheapest_of_those_said_to_have_as_few_features(tables):
    matched = tables[0].copy()
    own = matched[matched["method"] == "topk_features"].iloc[[0]].assign(best_of_kind=False)
    dear, cheap = (
        own.assign(method=name, l0=l0, validation_kl=kl, kl_ratio=kl * 100)
        for name, l0, kl in (("qp_optimal", 0.97, 0.8), ("single_feature", 1.0, 0.05))
    )
    matched = pd.concat([matched[matched["method"] != "single_feature"], dear, cheap])
    text = said(verdict(Tables(pareto(), matched), summary(*tables), factor=2.5), "sparsity")
    assert "The sparsest that gets there on the reported prompts, single_feature with 1" in text


def test_a_reference_that_misses_the_effect_on_validation_prompts_is_no_limit_there(tables):
    matched = tables[0].copy()
    matched.loc[matched["method"] == "caa_mean_diff", "validation_kl"] = np.nan
    assert fewest_features(matched, 1.5)["method"] == "topk_features"
    text = said(verdict(Tables(pareto(), matched), summary(*tables)), "sparsity")
    assert text.startswith(
        "10 features reach a change of 0.2 on validation prompts, where the best dense direction "
        "does not: topk_features. On the reported prompts it costs 2 times as much as that "
        "direction (95 % interval "
    )
    matched.loc[matched["kind"] == "features", "validation_kl"] = np.nan
    assert matched["validation_kl"].notna().any() and fewest_features(matched, 1.5) is None
    text = said(verdict(Tables(pareto(), matched), summary(*tables)), "sparsity")
    assert "reported and on the validation prompts, and neither does the best dense" in text


def published(matched: pd.DataFrame, **changed) -> pd.DataFrame:
    """The table with the published program, which costs more and uses more features."""
    own = matched[matched["method"] == "topk_features"].iloc[[0]]
    cells = {"method": "qp_optimal", "curve": "tau at lambda=1", "l0": 14.0, "kl_ratio": 6.0}
    cells |= {"validation_kl": 0.06, "kl_ratio_ci_low": 4.0, "kl_ratio_ci_high": 9.0}
    row = own.assign(best_of_kind=False, **cells, **changed)
    return pd.concat([matched, row], ignore_index=True)


def test_the_cheapest_with_few_features_stands_beside_the_published_program(tables):
    matched = published(tables[0])
    found = verdict(Tables(pareto(), matched), summary(*tables))
    text = said(found, "few")
    assert text.startswith(
        "For a change of 0.2, topk_features with 10 features is the cheapest method with at most 12"
    )
    assert "2 times as much as caa_mean_diff (95 % interval 2 to 2)" in text
    assert "That is more than 1.5 times, beyond noise." in text
    assert (
        "The program of the published method, at strengths of this experiment, qp_optimal with "
        "λ = 1, costs 6 times as much (95 % interval 4 to 9)" in text
    )
    assert (found["few"]["method"], found["few"]["features"]) == ("topk_features", 12)
    assert found["published"]["kl_ratio"] == 6.0
    lost = published(tables[0], status="not_reached")
    assert said(verdict(Tables(pareto(), lost), summary(*tables)), "few").endswith(
        "qp_optimal with λ = 1, does not reach the effect."
    )
    unchosen = published(tables[0])
    unchosen.loc[unchosen["method"] == "qp_optimal", "validation_kl"] = np.nan
    found = verdict(Tables(pareto(), unchosen), summary(*tables))
    assert found["published"] is None
    assert said(found, "few").endswith(
        "qp_optimal, does not reach the effect on validation prompts."
    )


def test_a_method_with_more_features_is_not_among_the_few(tables):
    found = verdict(Tables(pareto(), tables[0]), summary(*tables), features=9)
    # single_feature never reaches the effect, so no validation KL speaks for it
    assert found["few"] is None and not said(found, "few") and found["published"] is None


def test_few_features_that_fail_on_the_reported_prompts_are_reported(tables):
    matched = tables[0].copy()
    own = matched["method"] == "topk_features"
    matched.loc[own, "status"] = "not_reached"
    matched.loc[own, ["kl", "l0", "kl_ratio", "kl_ratio_ci_low", "kl_ratio_ci_high"]] = np.nan
    text = said(verdict(Tables(pareto(), matched), summary(*tables)), "few")
    assert text.endswith(
        "topk_features is the cheapest method with at most 12 features on validation prompts; on "
        "the reported ones it does not reach the effect."
    )


def test_a_random_direction_that_reaches_the_effect_is_a_warning(tables):
    matched = tables[0].copy()
    own = matched["method"] == "random_direction"
    matched.loc[own, ["status", "kl"]] = ["reached", 0.5]
    found = verdict(Tables(pareto(), matched), summary(*tables))
    assert "a random direction reaches the effect as well" in found["distrust"][-1]


def differences(**changed) -> pd.DataFrame:
    """The sparse method beside its references, by two judges."""
    row = {
        "method": "topk_features", "judge": "lexicon", "selected": True, "judges_agree": True,
        "rate_difference": 0.02, "rate_difference_ci_low": -0.05, "rate_difference_ci_high": 0.09,
        "rate_detectable": 0.1, "kl_difference": 0.01,
    }  # fmt: skip
    rows = [
        row | {"reference": name, "reference_method": method, "judge": judge} | changed
        for judge in ("lexicon", "vader")
        for name, method in (("no_steering", "no_steering"), ("best_dense", "caa_mean_diff"))
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("low", "high", "difference", "words"),
    [
        (-0.05, 0.09, 0.02, "so it leaves undecided which has the larger effect"),
        (0.01, 0.2, 0.09, "and this one is more than noise"),
        (-0.2, 0.01, -0.12, "but the interval contains 0"),
    ],
)
def test_a_difference_below_what_the_run_detects_is_undecided(tables, low, high, difference, words):
    made = differences(
        rate_difference=difference, rate_difference_ci_low=low, rate_difference_ci_high=high
    )
    found = verdict(Tables(pareto(), tables[0], differences=made), summary(*tables))
    text = said(found, "power")
    assert words in text and f"{N} prompts with one text each detect a change of 0.1" in text
    beyond = int(low > 0 or high < 0)
    assert f"{beyond} of 1 methods differ from caa_mean_diff" in text
    sides = f"{int(low > 0)} have a larger share, {int(high < 0)} a smaller one."
    assert sides in text
    assert "At their selected strengths, topk_features and caa_mean_diff differ by" in text
    beside = found["power"]["beside_best_dense"]
    assert beside["rate_difference"] == difference and beside["rate_detectable"] == 0.1


@pytest.mark.parametrize(("smallest", "warned"), [(0.9, True), (0.001, False)])
def test_the_headline_says_that_its_effect_is_below_what_the_run_detects(tables, smallest, warned):
    made = Tables(pareto(), tables[0], differences=differences(rate_detectable=smallest))
    headline = verdict(made, summary(*tables))["headline"]
    assert ("smaller than what the run detects (0.9)" in headline) == warned
    assert ("what the run detects" in headline) == warned


def test_judges_that_disagree_are_distrusted(tables):
    judges = pd.DataFrame(
        {
            "judge": ["lexicon", "vader"], "headline": [True, False], "agreement": [np.nan, 0.7],
            "agreement_ci_low": [np.nan, 0.6], "agreement_ci_high": [np.nan, 0.8],
            "kappa": [np.nan, 0.41],
        }
    )  # fmt: skip
    made = Tables(pareto(), tables[0], differences=differences(), judges=judges)
    found = verdict(made, summary(*tables))
    assert "vader agrees with lexicon on 70% of the texts that both put in a class" in said(
        found, "judges"
    )
    assert not [text for text in found["distrust"] if "disagree" in text]
    made = Tables(pareto(), tables[0], differences=differences(judges_agree=False))
    first, second = verdict(made, summary(*tables))["distrust"][:2]
    assert "against no steering, each beyond noise: topk_features" in first
    assert "beside the best dense direction" in second


def test_judges_that_call_opposite_winners_are_distrusted(tables):
    second = tables[0].assign(judge="vader")
    own = second["method"] == "topk_features"
    second.loc[own, ["kl_ratio_ci_low", "kl_ratio_ci_high"]] = [0.2, 0.8]
    both = pd.concat([tables[0], second], ignore_index=True)
    found = verdict(Tables(pareto(), both), summary(*tables))["distrust"][0]
    assert found.startswith("judges disagree on what is cheaper") and "judge: vader" in found
    same = pd.concat([tables[0], tables[0].assign(judge="vader")], ignore_index=True)
    found = verdict(Tables(pareto(), same), summary(*tables))["distrust"]
    assert "disagree" not in " ".join(found)
