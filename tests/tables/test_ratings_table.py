"""The tables of ratings, over prompts and over concepts, from known scores."""

import numpy as np
import pandas as pd
import pytest

from steering_core.tables.ratings import Rated, axbench_table, ratings_table

PUBLISHED = pd.DataFrame(
    {
        "concept_set": ["set", "set", "other"],
        "method": ["prompting", np.nan, "prompting"],
        "name": ["Prompting", "LoReFT", "Prompting"],
        "published": [0.7, 0.6, 0.1],
        "rerun": [0.5, 0.4, 0.1],
    }
)


def rows(method, index, harmonic, norm, split="prompt", tau=np.nan):
    """Rated texts of one strength, a prompt each; the three ratings are the score itself."""
    n = len(harmonic)
    return pd.DataFrame(
        {
            "method": method,
            "strength_index": index,
            "strength_name": "alpha",
            "strength": float(index + 1),
            "tau": tau,
            "example_id": [f"{split}{i}" for i in range(n)],
            "draw": 0,
            "split": split,
            "residual_norm": norm,
            "made": True,
            **dict.fromkeys(("concept", "instruction", "fluency", "harmonic"), harmonic),
        }
    )


def concept(shift=0.0, validation=(0.5, 1.5, 1.0)):
    """A dense direction and a sparse method at three norms each, and an instruction."""
    frames = []
    for method, norms, level in (
        ("caa_repe", (1.0, 2.0, 4.0), (0.4, 1.2, 1.0)),
        ("single_feature", (1.0, 3.0, 5.0), (0.2, 0.6, 1.0)),
    ):
        for index, (norm, mean) in enumerate(zip(norms, level, strict=True)):
            mean += shift
            frames.append(rows(method, index, [mean - 0.1, mean + 0.1], norm))
            frames.append(rows(method, index, [validation[index]] * 2, norm, "validation_prompt"))
    frames.append(rows("prompting", 0, [1.6 + shift] * 2, np.nan))
    frames.append(rows("prompting", 0, [1.0] * 2, np.nan, "validation_prompt"))
    return pd.concat(frames, ignore_index=True)


def test_the_strength_is_selected_on_the_validation_prompts_alone():
    table = ratings_table("e", concept(), seed=0, n_resamples=100)
    chosen = table[table["selected"]].set_index("method")
    # By the reported prompts, single_feature would have its last strength.
    assert chosen["strength"].to_dict() == {"caa_repe": 2, "single_feature": 2, "prompting": 1}
    assert chosen.loc["caa_repe", "harmonic"] == pytest.approx(1.2)
    assert chosen.loc["caa_repe", "validation_harmonic"] == 1.5
    assert (table["n_texts"] == 2).all() and (table["n_unrated"] == 0).all()
    assert table.loc[table["method"] == "prompting", "norm"].isna().all()


def test_the_first_of_equally_good_strengths_is_selected():
    table = ratings_table("e", concept(validation=(1.0, 1.5, 1.5)), seed=0, n_resamples=10)
    assert table.loc[table["selected"], "strength"].tolist() == [2, 2, 1]


def test_a_text_without_a_score_is_counted_and_in_no_mean():
    texts = rows("caa_repe", 0, [1.0, np.nan], 1.0)
    (row,) = ratings_table("e", texts, seed=0, n_resamples=10).to_dict("records")
    assert (row["n_texts"], row["n_unrated"], row["harmonic"]) == (2, 1, 1.0)
    assert pd.isna(row["selected"]) and pd.isna(row["validation_harmonic"])
    nothing = ratings_table("e", texts.assign(harmonic=np.nan), seed=0, n_resamples=10)
    assert nothing["harmonic"].isna().all()


def test_the_draws_of_a_prompt_are_averaged_first():
    twice = pd.concat(
        [
            rows("caa_repe", 0, [0.0, 2.0], 1.0),
            rows("caa_repe", 0, [1.0, 2.0], 1.0).assign(draw=1),
            rows("caa_repe", 0, [2.0, 2.0], 1.0).assign(draw=2),
        ]
    )
    assert Rated(twice).scores("caa_repe", 0)["harmonic"].tolist() == [1.0, 2.0]


def test_ratings_at_a_norm_lie_between_two_strengths():
    rated = Rated(concept())
    assert rated.common_norm == 2.0
    np.testing.assert_allclose(rated.at_norm("single_feature", 2.0)["harmonic"], [0.3, 0.5])
    np.testing.assert_allclose(rated.at_norm("caa_repe", 2.0)["harmonic"], [1.1, 1.3])
    assert rated.at_norm("single_feature", 6.0) is None and rated.at_norm("prompting", 2.0) is None


def test_texts_without_a_score_are_counted_where_a_method_stands():
    texts = concept()
    own = texts["method"].eq("single_feature") & texts["split"].eq("prompt")
    first = texts["example_id"].eq("prompt0")
    # At its best it stands at the second strength, at the common norm between the first two.
    texts.loc[own & first & texts["strength_index"].eq(0), "harmonic"] = np.nan
    table = axbench_table("set", {"a": texts}, PUBLISHED, seed=0, n_resamples=10)
    counts = table.set_index(["method", "at"])["n_unrated"]
    assert counts["single_feature", "best"] == 0 and counts["single_feature", "equal_norm"] == 1
    assert counts["caa_repe", "equal_norm"] == 0 and counts["prompting", "equal_norm"] == 0


def test_methods_are_averaged_over_concepts_at_their_best_and_at_one_norm():
    concepts = {"axbench_0": concept(), "axbench_1": concept(0.2)}
    table = axbench_table("set", concepts, PUBLISHED, seed=0, n_resamples=100)
    rows_of = table.set_index(["method", "at"])
    best, equal = (rows_of.loc["single_feature", at] for at in ("best", "equal_norm"))
    assert best["harmonic"] == pytest.approx(0.7) and best["norm"] == 3.0
    assert best["harmonic_ci_low"] == pytest.approx(0.6)
    assert best["harmonic_ci_high"] == pytest.approx(0.8)
    assert equal["harmonic"] == pytest.approx(0.5) and equal["norm"] == 2.0
    assert (rows_of.loc["caa_repe"]["harmonic"] - 1.3).abs().max() < 1e-9
    prompting = rows_of.loc["prompting", "best"]
    assert (prompting["published"], prompting["rerun"], prompting["n_concepts"]) == (0.7, 0.5, 2)
    nowhere = rows_of.loc["prompting", "equal_norm"]
    assert nowhere["n_concepts"] == 0 and np.isnan(nowhere["harmonic"])
    loreft = rows_of.loc["LoReFT", "best"]
    assert loreft["published"] == 0.6 and np.isnan(loreft["harmonic"])
    assert table["experiment"].eq("set").all() and (0.1 != table["published"]).all()


def test_a_refusal_at_every_strength_leaves_the_strengths_with_the_fewest():
    one, two = [1.0, *[1.5] * 8, np.nan], [*[2.0] * 8, np.nan, np.nan]
    texts = pd.concat(
        [
            rows("caa_repe", index, [1.5] * 10, norm, "prompt")
            for index, norm in ((0, 1.0), (1, 2.0), (2, 3.0))
        ]
        + [
            rows("caa_repe", index, scores, norm, "validation_prompt")
            for index, scores, norm in ((0, one, 1.0), (1, two, 2.0), (2, [1.2, *one[1:]], 3.0))
        ]
    )
    table = ratings_table("e", texts, seed=0, n_resamples=10)
    assert table["selected"].tolist() == [False, False, True]


def test_a_strength_with_an_unrated_validation_text_is_not_selected():
    lone = [2.0, *[np.nan] * 9]
    texts = pd.concat(
        [
            rows("caa_repe", 0, [1.5] * 10, 1.0),
            rows("caa_repe", 1, [1.5] * 10, 2.0),
            rows("caa_repe", 0, [1.5] * 10, 1.0, "validation_prompt"),
            rows("caa_repe", 1, lone, 2.0, "validation_prompt"),
        ]
    )
    table = ratings_table("e", texts, seed=0, n_resamples=10)
    assert table["selected"].tolist() == [True, False]
    assert table["validation_harmonic"][0] == 1.5 and np.isnan(table["validation_harmonic"][1])
