"""The comparison at matched effect, the summary and the verdict, from texts with known effects."""

import json

import numpy as np
import pandas as pd
import pytest

from steering_core.storage.files import write_json
from steering_core.tables.charts import save_chart
from steering_core.tables.columns import column_names
from steering_core.tables.effect_curves import text_measures
from steering_core.tables.matched import Matching, compare, dense_method, matched_table
from steering_core.tables.matched_figure import matched_figure
from steering_core.tables.pareto import Measured
from steering_core.tables.verdict import Tables, fewest_features, spoken, summary_table, verdict

N = 40
#: Method: KL and target rate of each strength, and features; None for a dense direction.
METHODS = {
    "caa_mean_diff": ([0.01, 0.04], [0.6, 0.8], None),
    "caa_repe": ([0.09, 0.36], [0.6, 0.8], None),
    "topk_features": ([0.02, 0.08], [0.6, 0.8], 10),
    "single_feature": ([0.4, 0.8], [0.45, 0.55], 1),
    "random_direction": ([0.01, 0.04], [0.4, 0.4], None),
}
BASE = 0.4


def judged(rate: float) -> np.ndarray:
    return (np.arange(N) < round(rate * N)).astype(float)


def texts(prefix: str, draws: int = 1) -> pd.DataFrame:
    rows = [("no_steering", 0, 0.0, BASE)]
    rows += [
        (method, index, kl, rate)
        for method, (kls, rates, _) in METHODS.items()
        for index, (kl, rate) in enumerate(zip(kls, rates, strict=True))
    ]
    frames = []
    for method, index, kl, rate in rows:
        for draw in range(draws):
            frame = pd.DataFrame({"example_id": [f"{prefix}{i}" for i in range(N)]})
            # Costs differ between prompts in the same way for all methods.
            spread = 10 * (1 + 0.5 * np.sin(np.arange(N)) - 0.5 * np.sin(np.arange(N)).mean())
            frames.append(
                frame.assign(
                    method=method, strength_index=index, draw=draw, kl_sum=kl * spread,
                    base_nll_sum=20.0, n_tokens=10, judged=judged(rate), score=judged(rate),
                )
            )  # fmt: skip
    return pd.concat(frames, ignore_index=True)


def solutions() -> pd.DataFrame:
    frames = []
    for method, (kls, _, l0) in [("no_steering", ([0.0], None, 0)), *METHODS.items()]:
        for index, kl in enumerate(kls):
            frame = pd.DataFrame({"example_id": [f"p{i}" for i in range(N)]})
            frames.append(
                frame.assign(
                    method=method, strength_index=index, strength_name="alpha",
                    strength=float(index + 1) if kl else 0.0, tau=np.nan, lam=np.nan,
                    epsilon=np.nan, status="fixed", l0=np.nan if l0 is None else float(l0),
                    residual_norm=10 * np.sqrt(kl), split="prompt",
                )
            )  # fmt: skip
    return pd.concat(frames, ignore_index=True)


def measured(draws: int = 1, *, validation: bool = True) -> Measured:
    chosen = texts("v", draws) if validation else None
    return Measured(solutions(), pd.DataFrame(), texts("p", draws), chosen)


def compared(found: Measured, **settings) -> tuple[pd.DataFrame, pd.DataFrame]:
    matching = Matching("lexicon", n_resamples=200, **settings)
    return matched_table(compare(found, matching), "e")


@pytest.fixture(scope="module")
def tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    return compared(measured())


def test_costs_at_half_of_the_largest_effect(tables):
    table = tables[0].set_index("method")
    assert table["effect"].unique() == pytest.approx([0.2])
    assert table.loc["caa_mean_diff", "kl"] == pytest.approx(0.01)
    assert table.loc["topk_features", "kl"] == pytest.approx(0.02)
    assert table.loc["topk_features", "kl_ratio"] == pytest.approx(2.0)
    assert table.loc["topk_features", "kl_difference"] == pytest.approx(0.01)
    assert table.loc["topk_features", "l0"] == 10 and np.isnan(table.loc["caa_repe", "l0"])
    assert table.loc["caa_mean_diff", "perplexity"] == pytest.approx(np.exp(2))
    assert table.loc["caa_mean_diff", "residual_norm"] == pytest.approx(1.0)
    assert set(table["reference"]) == {"caa_mean_diff, alpha"}
    assert set(table.index[table["best_of_kind"]]) >= {"caa_mean_diff", "topk_features"}


def test_a_paired_ratio_is_surer_than_its_parts(tables):
    row = tables[0].set_index("method").loc["topk_features"]
    # The effects are the same prompt by prompt, so what varies is common to both.
    assert row["kl_ratio_ci_low"] == pytest.approx(2.0) == row["kl_ratio_ci_high"]
    assert row["kl_ci_high"] > 1.5 * row["kl_ci_low"]


def test_a_method_that_never_reaches_the_effect_has_a_status_and_no_number(tables):
    row = tables[0].set_index("method").loc["single_feature"]
    assert row["status"] == "not_reached" and row["best_effect"] == pytest.approx(0.15)
    assert row[["kl", "kl_ratio", "l0", "perplexity", "strength"]].isna().all()
    assert row["effect_difference"] < 0 and row["reached_share"] < 0.5


def test_several_texts_of_a_prompt_are_one_cluster(tables):
    twice = compared(measured(draws=2))[0]
    kept = ["kl", "kl_ci_low", "kl_ci_high", "kl_ratio", "effect", "l0"]
    pd.testing.assert_frame_equal(twice[kept], tables[0][kept])
    assert (twice["n_texts"] == 2 * N).all() and (twice["n_prompts"] == N).all()


def test_the_reference_is_chosen_on_validation_prompts():
    found = measured()
    chosen = found.validation_texts
    # On validation prompts RepE is the cheaper one.
    chosen.loc[chosen["method"] == "caa_repe", "kl_sum"] /= 1000
    table = compared(found)[0]
    assert set(table["reference"]) == {"caa_repe, alpha"}
    without = compared(measured(validation=False))[0]
    assert set(without["reference"]) == {"caa_mean_diff, alpha"}
    assert without["warnings"].str.contains("chosen on the reported prompts").all()
    assert without["validation_kl"].isna().all()


def test_a_strength_that_lacks_a_text_is_on_no_curve():
    found = measured()
    lost = (found.texts["method"] == "topk_features") & (found.texts["strength_index"] == 1)
    first = found.texts.index[lost][0]
    found.texts.loc[first, ["kl_sum", "n_tokens", "judged", "score"]] = [np.nan, 0, np.nan, np.nan]
    table, curves = compared(found)
    row = table.set_index("method").loc["topk_features"]
    assert row["n_points"] == 1 and "1 of 2 strengths are not on the curve" in row["warnings"]
    assert not curves.set_index(["method", "strength"]).loc[("topk_features", 2.0), "whole"]


def test_an_effect_that_is_set_is_matched_and_none_leaves_cells_empty():
    table = compared(measured(), effect=0.3)[0].set_index("method")
    assert set(table["effect"]) == {0.3} and table.loc["caa_mean_diff", "kl"] < 0.04
    found = measured()
    for part in (found.texts, found.validation_texts):
        part["judged"] = 1.0
    table, curves = compared(found)
    assert set(table["status"]) == {"not_measured"} and table["kl"].isna().all()
    assert (
        "no effect to compare"
        in verdict(Tables(pareto(), table), summary(table, curves))["headline"]
    )


def test_scores_of_further_judges_are_measures_turned_to_the_target():
    frame = pd.DataFrame({"judged": [1.0, 0.0], "score": [1.0, 0.0]})
    assert list(text_measures(frame, "lexicon", 1)) == [("lexicon", "rate")]
    frame = frame.assign(judged_vader=[0.0, 1.0], score_vader=[0.7, 0.2])
    found = text_measures(frame, "lexicon", 0)
    assert list(found) == [("lexicon", "rate"), ("vader", "rate"), ("vader", "score")]
    assert found["vader", "score"].tolist() == pytest.approx([0.3, 0.8])


def pareto() -> pd.DataFrame:
    rows = []
    for method, (kls, rates, l0) in [("no_steering", ([0.0], [BASE], 0)), *METHODS.items()]:
        for index, (kl, rate) in enumerate(zip(kls, rates, strict=True)):
            rows.append(
                {
                    "experiment": "e", "model": "org/model", "task": "sst2", "layer": 7, "seed": 0,
                    "method": method, "strength_name": "alpha",
                    "strength": float(index + 1) if kl else 0.0, "n_texts": N, "n_prompts": N,
                    "kl_mean": kl, "classifier_rate_steered": rate, "prompt_l0_mean": l0,
                    "selected": index == 0, "on_frontier": False, "warnings": "the judge is blind",
                }
            )  # fmt: skip
    table = pd.DataFrame(rows).reindex(columns=column_names("pareto"))
    return table.astype({"prompt_l0_mean": float})


def summary(matched: pd.DataFrame, curves: pd.DataFrame) -> pd.DataFrame:
    return summary_table(pareto(), matched, curves)


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
    assert "No method made of features comes within 1.5 times" in said(found, "sparsity")
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
def test_the_interval_decides_what_is_said(tables, low, high, words):
    matched = tables[0].copy()
    own = matched["method"] == "topk_features"
    matched.loc[own, ["kl_ratio_ci_low", "kl_ratio_ci_high"]] = [low, high]
    assert words in verdict(Tables(pareto(), matched), summary(*tables))["headline"]


def test_a_count_of_features_is_said_once(tables):
    matched = tables[0].copy()
    matched.loc[matched["method"] == "topk_features", "curve"] = "tau at features=10"
    found = verdict(Tables(pareto(), matched), summary(*tables))
    assert "topk_features with 10 features, costs" in found["headline"]


def test_features_within_a_factor_and_whether_that_is_sure(tables):
    matched = tables[0].copy()
    assert fewest_features(matched, 1.5) is None
    assert fewest_features(matched, 2.5)["method"] == "topk_features"
    text = said(verdict(Tables(pareto(), matched), summary(*tables), factor=2.5), "sparsity")
    assert text.startswith("10 features come within 2.5 times") and "rule out" not in text
    matched.loc[matched["method"] == "topk_features", "kl_ratio_ci_high"] = 4.0
    text = said(verdict(Tables(pareto(), matched), summary(*tables), factor=2.5), "sparsity")
    assert text.endswith("The interval does not rule out more than 2.5 times.")


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
    beside = found["power"]["beside_best_dense"]
    assert beside["rate_difference"] == difference and beside["rate_detectable"] == 0.1


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
    assert "vader agrees with lexicon on 70% of the texts" in said(found, "judges")
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


def test_there_is_one_best_dense_direction(tables):
    assert dense_method(tables[0]) == "caa_mean_diff"
    assert dense_method(tables[0].assign(reference=None)) is None
    assert dense_method(tables[0].iloc[:0]) is None


def test_the_picture_is_drawn_with_and_without_an_effect(tables, tmp_path):
    for number, matched in enumerate((tables[0], tables[0].assign(effect=np.nan))):
        path = tmp_path / f"{number}.svg"
        save_chart(matched_figure(matched, tables[1]), path)
        write_json(tmp_path / "size.json", {"bytes": path.stat().st_size})
        assert "<svg" in path.read_text(encoding="utf-8")
    assert "topk_features" in (tmp_path / "0.svg").read_text(encoding="utf-8")
