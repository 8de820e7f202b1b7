"""Effect and cost over the dose, from texts with known sums."""

import json

import numpy as np
import pandas as pd
import pytest

from steering_core.tables.charts import svg_text
from steering_core.tables.dose import dose_figure, dose_table, repeated_share, with_repetition
from steering_core.tables.measured import Measured

PROMPTS = ["a", "b"]


def measured(strengths):
    """Texts of ``(method, score of each prompt, log perplexity, KL, norm)``, no steering first."""
    solutions, texts = [], []
    counts: dict[str, int] = {}
    for method, scores, level, kl, norm in strengths:
        index = counts[method] = counts.get(method, -1) + 1
        for prompt, score in zip(PROMPTS, scores, strict=True):
            key = {"method": method, "strength_index": index, "example_id": prompt}
            solutions.append(
                {
                    **key,
                    "split": "prompt",
                    "status": "fixed",
                    "strength_name": "instruction" if np.isnan(norm) else "alpha",
                    "strength": float(index + 1),
                    "tau": np.nan,
                    "lam": np.nan,
                    "epsilon": np.nan,
                    "residual_norm": norm,
                }
            )
            texts.append(
                {
                    **key,
                    "kl_sum": 10 * kl,
                    "base_nll_sum": 10 * level,
                    "n_tokens": 10,
                    "score": score,
                    "judged": float(score > 0.5),
                }
            )
    return Measured(pd.DataFrame(solutions), pd.DataFrame(), pd.DataFrame(texts))


STRENGTHS = [
    ("no_steering", (0.4, 0.6), 1.0, 0.0, 0.0),
    ("caa_repe", (0.6, 0.5), 1.2, 0.1, 2.0),
    ("caa_repe", (0.9, 0.9), 1.8, 0.5, 4.0),
    ("caa_repe", (0.9, 0.9), 1.0, 0.9, 8.0),
    ("prompting", (0.9, 0.9), 1.0, 0.2, np.nan),
]


def table(strengths=STRENGTHS, repetition=0.0, target_class=1):
    found = measured(strengths)
    texts = found.texts.assign(repetition=repetition)
    return dose_table(
        "e",
        found,
        texts,
        4.0,
        target_class=target_class,
        fluent_perplexity=2.0,
        fluent_repetition=0.1,
        seed=0,
        n_resamples=100,
    )


def test_a_method_without_a_vector_has_all_but_a_dose():
    found = table()
    assert found["method"].tolist() == ["no_steering", *["caa_repe"] * 3, "prompting"]
    row = found.iloc[-1]
    assert np.isnan(row["dose"]) and np.isnan(row["fluent_up_to"])
    assert (row["effect"], row["anti_steered"], row["kl"]) == (0.5, 0.0, pytest.approx(0.2))
    assert row["fluent"] and row["anti_steered_ci_high"] > 0.5
    assert "prompting" not in json.dumps(dose_figure(found).to_dict())


def test_the_dose_is_in_mean_residual_norms():
    found = with_dose()
    assert found["method"].tolist() == ["no_steering", *["caa_repe"] * 3]
    assert found["dose"].tolist() == [0.0, 0.5, 1.0, 2.0]
    assert found["kl"].tolist() == pytest.approx([0.0, 0.1, 0.5, 0.9])
    assert found["effect"].tolist() == [0.0, 0.0, 0.5, 0.5]
    # No steering is compared with itself, which leaves no doubt.
    assert found.loc[0, ["effect_ci_low", "effect_ci_high"]].tolist() == [0.0, 0.0]


def with_dose(**others):
    return table(STRENGTHS[:-1], **others)


def test_prompts_that_moved_away_from_the_target_are_counted():
    assert with_dose()["anti_steered"].tolist() == [0.0, 0.5, 0.0, 0.0]
    # Towards class 0 the same texts move the other way.
    assert with_dose(target_class=0)["anti_steered"].tolist() == [0.0, 0.5, 1.0, 1.0]
    row = table().iloc[2]
    assert row["anti_steered_ci_high"] > 0.5  # two prompts exclude little


def test_the_band_ends_before_the_first_dose_that_is_not_fluent():
    found = with_dose()
    np.testing.assert_allclose(found["perplexity_ratio"], np.exp([0, 0.2, 0.8, 0.0]))
    # The last has a low perplexity again, as repetitive texts do, but lies beyond the band.
    assert found["fluent"].tolist() == [True, True, False, True]
    assert found["fluent_up_to"].tolist() == [0.0, 0.5, 0.5, 0.5]


def test_repetition_beyond_that_of_the_unsteered_texts_ends_the_band():
    shares = [0.2] * 2 + [0.25] * 2 + [0.5] * 4
    found = with_dose(repetition=shares)
    assert found["repetition_base"].tolist() == [0.2] * 4
    assert found["fluent"].tolist() == [True, True, False, False]
    rough = table([STRENGTHS[0], ("caa_repe", (0.9, 0.9), 3.0, 0.1, 1.0)])
    assert np.isnan(rough["fluent_up_to"].iloc[1])


def test_a_prompt_that_the_judge_refuses_to_rate_has_cost_and_no_effect():
    found = measured([*STRENGTHS[:2], ("caa_repe", (0.9, np.nan), 1.8, 0.5, 4.0)])
    found.texts.loc[found.texts["score"].isna(), "judged"] = np.nan
    limits = {"target_class": 1, "fluent_perplexity": 2.0, "fluent_repetition": 0.1}
    texts = found.texts.assign(repetition=0.0)
    row = dose_table("e", found, texts, 4.0, **limits, seed=0, n_resamples=100).iloc[-1]
    assert (row["effect"], row["anti_steered"]) == (1.0, 0.0)
    assert row["kl"] == pytest.approx(0.5) and row["n_prompts"] == 2


def test_the_share_of_repeated_runs():
    assert repeated_share([1, 2, 3, 4]) == 0.0
    assert repeated_share([5] * 6) == 0.75
    assert repeated_share([1, 2, 3, 1, 2, 3]) == 0.25
    assert np.isnan(repeated_share([1, 2]))


def test_repetition_is_averaged_over_the_draws_of_a_prompt():
    found = measured(STRENGTHS[:1])
    key = {"method": "no_steering", "strength_index": 0}
    draws = [
        {**key, "example_id": prompt, "draw": draw, "new_tokens": tokens}
        for prompt in PROMPTS
        for draw, tokens in enumerate(([1, 2, 3, 4], [5] * 6))
    ]
    texts = with_repetition(found, pd.DataFrame(draws))
    assert texts["repetition"].tolist() == [0.375, 0.375]
    lost = pd.DataFrame(draws).query("draw == 0").assign(new_tokens=None)
    assert with_repetition(found, lost)["repetition"].isna().all()


def test_the_picture_has_four_panels_and_hollow_points():
    chart = dose_figure(table()).to_dict()
    assert len(chart["concat"]) == 4
    assert "not fluent" in json.dumps(chart)
    nothing = dose_figure(table(STRENGTHS[:1])).to_dict()
    assert "no method adds a vector" in json.dumps(nothing)


def test_the_picture_names_its_methods_once():
    assert svg_text(dose_figure(table())).count(">caa_repe<") == 1
