"""Scores, coefficients, ranking, plans and strategies on planted data."""

import numpy as np
import pandas as pd
import pytest
import torch
from corrsteer_world import SITE

from steering_core.config.corrsteer_schema import DEFAULT_ARMS, Arm
from steering_core.corrsteer.accumulate import Accumulator, Accumulators, to_csr
from steering_core.corrsteer.plan import Plan, choose, coefficients, make_plan
from steering_core.corrsteer.scores import (
    NEVER_FIRES,
    NO_FAILURE,
    NO_SUCCESS,
    SCORES,
    PooledStatistic,
    score,
    snapshot,
)
from steering_core.tables.columns import validate_table

UP, DOWN, DEAD, RARE = 3, 5, 7, 9
N_FEATURES, D_MODEL = 12, 6


def planted(n=400, seed=0, success_rate=0.5):
    rng = np.random.default_rng(seed)
    success = rng.random(n) < success_rate
    values = rng.exponential(1.0, (n, N_FEATURES)) * (rng.random((n, N_FEATURES)) < 0.3)
    values[:, UP] = np.where(success, 2.0 + rng.normal(0, 0.3, n), 0.1)
    values[:, DOWN] = np.where(success, 0.0, 1.0 + rng.random(n))
    values[:, DEAD] = 0.0
    values[:, RARE] = 0.0
    values[np.flatnonzero(success)[:1], RARE] = 0.5
    return values, success


def accumulated(values, success, statistic=None, histogram=True):
    part = Accumulator(values.shape[1], statistic or PooledStatistic(), histogram=histogram)
    for start in range(0, len(success), 16):
        part.update(torch.tensor(values[start : start + 16]), success[start : start + 16])
    return part


@pytest.fixture(scope="module")
def part():
    return accumulated(*planted())


def test_what_is_not_zero_is_found_row_by_row():
    dense = torch.tensor([[0.0, 2.0, -1.0], [0.0, 0.0, 0.0], [3.0, 0.0, torch.nan]])
    indptr, columns, values = to_csr(dense)
    assert indptr.tolist() == [0, 2, 2, 4] and columns.tolist() == [1, 2, 0, 2]
    np.testing.assert_array_equal(values, [2.0, -1.0, 3.0, np.nan])
    none = to_csr(dense[1:2])
    assert none[0].tolist() == [0, 0] and not len(none[1]) and not len(none[2])


def test_scores_are_the_textbook_ones(part):
    values, success = planted()
    up, down = values[success], values[~success]
    with np.errstate(all="ignore"):
        r = [abs(np.corrcoef(v, success)[0, 1]) for v in values.T]
        ratio = (up**2).mean(0) / (down**2).mean(0)
    falling = up.mean(0) < down.mean(0)
    with np.errstate(all="ignore"):
        ratio = np.where(falling, 1 / ratio, ratio)
    np.testing.assert_allclose(score("pearson", part).value, r, atol=1e-10)
    np.testing.assert_allclose(score("fisher", part).value, ratio, rtol=1e-9)
    np.testing.assert_allclose(
        np.delete(score("contrastive", part).value, DEAD),
        np.delete(np.abs(up.mean(0) - down.mean(0)), DEAD),
        atol=1e-12,
    )


@pytest.mark.parametrize("name", sorted(SCORES))
def test_every_score_refuses_dead_features_and_one_outcome(name, part):
    scores = score(name, part)
    assert np.isnan(scores.value[DEAD]) and scores.reason[DEAD] == NEVER_FIRES
    for rate, reason in ((0.0, NO_SUCCESS), (1.1, NO_FAILURE)):
        values, success = planted(50, success_rate=rate)
        one = score(name, accumulated(values, success))
        assert np.isnan(one.value).all() and set(one.reason) == {reason}


@pytest.mark.parametrize("name", ["pearson", "mutual_information", "contrastive"])
def test_planted_features_come_first_with_their_direction(name, part):
    scores = score(name, part)
    best = np.argsort(-np.nan_to_num(scores.value))[:2]
    assert set(best) == {UP, DOWN}
    assert scores.direction[UP] == 1 and scores.direction[DOWN] == -1


def test_mutual_information_without_a_histogram_is_an_error():
    with pytest.raises(ValueError, match="no fallback"):
        score("mutual_information", accumulated(*planted(), histogram=False))


def test_coefficients_are_means_over_the_outcome_that_a_feature_speaks_for(part):
    values, success = planted()
    scores = score("pearson", part)
    mean = coefficients(Arm(), scores.result, scores.direction)
    assert mean.value[UP] == pytest.approx(values[success, UP].mean())
    assert mean.value[DOWN] == pytest.approx(-values[~success, DOWN].mean())
    assert np.isnan(mean.value[DEAD]) and mean.reason[DEAD] == "coefficient of zero"
    overall = coefficients(Arm(coefficient="overall"), scores.result, scores.direction)
    assert overall.value[[UP, DOWN]] == pytest.approx(values[:, [UP, DOWN]].mean(axis=0))
    success_alone = coefficients(Arm(coefficient="success"), scores.result, scores.direction)
    firing = success_alone.value[~np.isnan(success_alone.value)]
    assert (firing > 0).all()
    assert success_alone.value[UP] == mean.value[UP]
    gap = coefficients(Arm(coefficient="difference"), scores.result, scores.direction)
    assert gap.value[DOWN] == pytest.approx(-values[~success, DOWN].mean())
    against = np.flatnonzero((scores.direction < 0) & (scores.result.mean_positive > 0))
    assert len(against) and (mean.value[against] < 0).all()


def world(layers=(1, 2, 3), strengths=(0.4, 2.0, 1.0), statistic=None, seed=0):
    """Layers whose planted feature is more or less noisy; layer 2 is the clearest."""
    made = Accumulators({(layer, statistic or PooledStatistic()): N_FEATURES for layer in layers})
    for layer, strength in zip(layers, strengths, strict=True):
        values, success = planted(seed=seed)
        rng = np.random.default_rng(layer)
        values[:, UP] = np.abs(values[:, UP] * strength + rng.normal(0, 1.0, len(success)))
        part = made.parts[layer, statistic or PooledStatistic()]
        part.update(torch.tensor(values), success)
    made.n = len(success)
    return made


ROWS = np.linalg.qr(np.random.default_rng(1).standard_normal((N_FEATURES, D_MODEL)))[0]


def plan(arm, accumulators=None, **options):
    return make_plan(
        arm,
        accumulators or world(),
        {layer: SITE for layer in (1, 2, 3)},
        lambda layer, features: ROWS[features],
        task_pooling="max",
        keep=5,
        seed=0,
        **options,
    )


def test_vector_is_coefficient_times_row_without_any_bias():
    made = plan(Arm(scale=2.0))
    for layer, vector in made.vectors.items():
        at = (made.features["layer"] == layer) & (made.features["rank"] == 0)
        best = made.features[at].iloc[0]
        np.testing.assert_allclose(
            vector, 2.0 * best["coefficient"] * ROWS[int(best["feature"])], rtol=1e-6
        )
    assert made.features.query("steered")["feature"].tolist() == [UP, UP, UP]
    assert len(made.features) == 15


def test_several_features_of_a_layer_add_up():
    made = plan(Arm(per_layer=3))
    best = made.features.query("layer == 2 and steered")
    assert len(best) == 3
    np.testing.assert_allclose(
        made.vectors[2],
        best["coefficient"].to_numpy() @ ROWS[best["feature"].to_numpy()],
        rtol=1e-5,
    )


def test_signs():
    positive = plan(Arm())
    assert (positive.features["direction"] == 1).all()
    for coefficient in ("mean", "difference"):
        negative = plan(Arm(sign="negative", coefficient=coefficient))
        assert (negative.features["direction"] == -1).all()
        # It fires on failures alone, and is taken out by what it has there.
        best = negative.features.query("rank == 0")
        assert best["feature"].tolist() == [DOWN] * 3 and (best["coefficient"] < -1).all()
    both = plan(Arm(sign="both", coefficient="difference"))
    assert set(both.features.query("rank < 2")["feature"]) == {UP, DOWN}


def test_a_random_feature_knows_no_label():
    values, success = planted()
    drawn = []
    for labels in (success, ~success, np.arange(len(success)) % 2 == 0):
        made = Accumulators({(layer, PooledStatistic()): N_FEATURES for layer in (1, 2, 3)})
        for part in made.parts.values():
            part.update(torch.tensor(values), labels)
        drawn.append(plan(Arm(**DEFAULT_ARMS["random_all"]), made))
    for other in drawn[1:]:
        columns = ["layer", "feature", "coefficient"]
        pd.testing.assert_frame_equal(other.features[columns], drawn[0].features[columns])
    assert choose("all", drawn[0]).layers == (1, 2, 3)
    assert DEAD not in set(drawn[0].features["feature"])
    assert {-1, 1} <= set(drawn[0].features["direction"])
    assert DEFAULT_ARMS["random_feature"] == {**DEFAULT_ARMS["random_all"], "strategy": "single"}


def test_layers_without_a_vector_are_named_with_the_reason():
    made = plan(Arm(), missing={4: "no SAE", 6: "no SAE", 5: NEVER_FIRES})
    assert made.gaps == f"no vector at layer 4 6: no SAE; no vector at layer 5: {NEVER_FIRES}"
    assert plan(Arm()).gaps == ""
    for table in (made.table(), plan(Arm()).table()):
        validate_table(table, "plans/{arm}")


def test_infinite_ratios_are_ordered_by_size_and_survive_the_file(tmp_path):
    made = plan(Arm(score="fisher"))
    assert made.features.query("rank == 0")["feature"].tolist() == [RARE] * 3
    made.save(tmp_path / "plan.safetensors")
    again = Plan.load(tmp_path / "plan.safetensors")
    pd.testing.assert_frame_equal(again.features, made.features)
    assert np.isinf(again.best_scores[1])
    assert again.sites == made.sites and again.undefined == made.undefined
    np.testing.assert_array_equal(again.vectors[2], made.vectors[2])


def test_raw_vector_is_the_difference_of_means():
    raw = PooledStatistic("raw", "generation", "max")
    arm = Arm(space="raw", coefficient="difference", sign="both", per_layer="all")
    accumulators = world(statistic=raw)
    made = plan(arm, accumulators)
    result = accumulators.parts[2, raw].correlation.result()
    np.testing.assert_allclose(
        made.vectors[2], result.mean_positive - result.mean_negative, rtol=1e-6
    )


def test_task_without_success_is_undefined_with_the_reason():
    made = Accumulators({(1, PooledStatistic()): N_FEATURES})
    values, success = planted(40, success_rate=0.0)
    made.parts[1, PooledStatistic()].update(torch.tensor(values), success)
    empty = plan(Arm(), made, missing={2: "no SAE"})
    assert empty.vectors == {} and empty.undefined == {1: NO_SUCCESS, 2: "no SAE"}
    choice = choose("all", empty)
    assert choice.layers == () and choice.reason == f"no SAE; {NO_SUCCESS}"
    assert empty.table()["reason"].tolist() == ["no SAE", NO_SUCCESS]
    validate_table(empty.table(), "plans/{arm}")
    # No feature is associated with success, so the best one is an empty cell.
    validate_table(snapshot(made), "convergence")


@pytest.mark.parametrize("rate", [0.03, 0.97])
@pytest.mark.parametrize("arm", [Arm(), Arm(**DEFAULT_ARMS["random_all"])], ids=["best", "random"])
def test_selection_needs_some_successes_and_some_failures(arm, rate):
    values, success = planted(100, success_rate=rate)
    few = min(success.sum(), 100 - success.sum())
    assert 0 < few < 10
    made = Accumulators({(1, PooledStatistic()): N_FEATURES})
    made.parts[1, PooledStatistic()].update(torch.tensor(values), success)
    assert 1 in plan(arm, made, min_outcomes=int(few)).vectors
    none = plan(arm, made, min_outcomes=int(few) + 1)
    assert none.vectors == {} and none.undefined[1] == (
        f"{success.sum()} successes and {100 - success.sum()} failures in training, and selection "
        f"needs {few + 1} of each (min_outcomes)"
    )
    assert choose("single", none).reason == none.undefined[1]


def test_shards_merge_to_the_whole_and_round_trip():
    values, success = planted()
    parts = []
    for rows in (slice(0, 150), slice(150, 400)):
        shard = Accumulators({(1, PooledStatistic()): N_FEATURES}, [PooledStatistic()])
        shard.parts[1, PooledStatistic()].update(torch.tensor(values[rows]), success[rows])
        shard.n = len(success[rows])
        parts.append(Accumulators.from_arrays(shard.to_arrays()))
    parts[0].merge(parts[1])
    assert parts[0].n == 400
    whole = accumulated(values, success)
    for name in SCORES:
        np.testing.assert_allclose(
            score(name, parts[0].parts[1, PooledStatistic()]).value,
            score(name, whole).value,
            atol=1e-10,
        )
    with pytest.raises(ValueError, match="shards"):
        parts[0].merge(Accumulators({(2, PooledStatistic()): 1}))


def validation(**accuracy):
    rows = [(-1 if k == "base" else int(k[1:]), v) for k, v in accuracy.items()]
    return pd.DataFrame(rows, columns=["layer", "accuracy"])


def test_strategies():
    made = plan(Arm())
    assert choose("single", made).layers == (2,)
    assert choose("all", made).layers == (1, 2, 3)
    table = validation(base=0.5, l1=0.6, l2=0.5, l3=0.55)
    assert choose("pruned", made, table).layers == (1, 3)
    assert choose("validated", made, table).layers == (1,)
    for strategy in ("pruned", "validated"):  # no steering is a candidate, and wins ties
        none = choose(strategy, made, validation(base=0.5, l1=0.5, l2=0.4, l3=0.1))
        assert none.layers == () and "unsteered validation accuracy (0.500)" in none.reason
        assert none.reason.startswith("nothing helped on validation")
    with pytest.raises(ValueError, match="needs the validation"):
        choose("pruned", made)
    with pytest.raises(ValueError, match="other layers"):
        choose("pruned", made, validation(base=0.5, l1=0.5))
