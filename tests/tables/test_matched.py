"""The comparison at matched effect, from texts with known effects."""

import numpy as np
import pandas as pd
import pytest
from matched_texts import N, compared, measured, pareto, summary

from steering_core.storage.files import write_json
from steering_core.tables.charts import save_chart
from steering_core.tables.differences import difference_table
from steering_core.tables.effect_curves import text_measures
from steering_core.tables.matched import dense_method
from steering_core.tables.matched_figure import matched_figure
from steering_core.tables.verdict import Tables, verdict


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


def test_a_measure_that_validation_prompts_lack_is_chosen_on_the_reported_ones_and_says_so():
    found = measured()
    found.texts["score"] = 0.3 + 0.4 * found.texts["judged"]  # graded here, all or nothing there
    table = compared(found)[0].set_index("measure")
    assert table.loc["rate", "validation_kl"].notna().any()
    assert table.loc["rate", "warnings"].isna().any()
    assert table.loc["score", "validation_kl"].isna().all()
    assert table.loc["score", "warnings"].str.contains("do not have this measure").all()
    assert (table.loc["score", "status"] == "reached").any()


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
    means = pd.DataFrame({"judged": [0.25, 0.75, 0.5], "score": [0.25, 0.875, 2 / 3]})
    assert list(text_measures(means, "lexicon", 1, draws=4)) == [("lexicon", "rate")]
    assert ("lexicon", "score") in text_measures(means, "lexicon", 1)


def test_the_change_at_a_selected_strength_has_one_interval_in_all_tables(tables):
    """Also where no prompt changes: ``random_direction`` leaves every verdict as it was."""
    selected = summary(*tables).set_index("method").drop("no_steering")
    boot = {"seed": 0, "n_resamples": 200}
    found = measured().texts
    beside = difference_table("e", found, pareto(), ["lexicon"], 1, dense=None, **boot)
    own = beside[beside["selected"] & (beside["reference"] == "no_steering")].set_index("method")
    ends = ["rate_difference", "rate_difference_ci_low", "rate_difference_ci_high"]
    effects = selected[["effect", "effect_low", "effect_high"]].loc[own.index].to_numpy(float)
    np.testing.assert_allclose(effects, own[ends].to_numpy(float), atol=1e-12)
    assert selected.loc["random_direction", "effect_high"] > 0.05


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
