import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steering_core.errors import DataError
from steering_core.probes.fit import fit_probe
from steering_core.probes.layer_sweep import best_alignment, pick_layer, sweep_layer


def rows_with_concept(strength, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(120) % 2
    h = rng.normal(size=(120, 16))
    h[:, 5] += strength * labels
    return h, labels


def test_alignment_is_the_worst_of_the_best_squared_cosines():
    decoder = np.array([[3.0, 0.0, 0.0], [0.0, 2.0, 2.0], [0.0, 0.0, 0.0]])
    directions = np.array([[-10.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    value, feature = best_alignment(decoder, directions)
    assert value == pytest.approx(0.5) and feature == 1
    assert best_alignment(decoder, directions[:1]) == (pytest.approx(1.0), 0)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.floats(0.01, 100))
def test_alignment_equals_brute_force_and_ignores_scale(seed, k, scale):
    rng = np.random.default_rng(seed)
    decoder, directions = rng.normal(size=(20, 6)), rng.normal(size=(k, 6))
    best = [max((d @ w) ** 2 / ((d @ d) * (w @ w)) for d in decoder) for w in directions]
    value, feature = best_alignment((scale * decoder).astype(np.float32), -directions)
    assert value == pytest.approx(min(best), rel=1e-4)
    w = directions[int(np.argmin(best))]
    assert feature == int(np.argmax((decoder @ w) ** 2 / (decoder**2).sum(1)))


def test_alignment_over_many_features_looks_at_all_of_them():
    rng = np.random.default_rng(0)
    decoder = rng.normal(size=(9000, 4))
    decoder[8500] = [1e-3, 2e-3, 3e-3, 4e-3]
    value, feature = best_alignment(decoder, np.array([[1.0, 2.0, 3.0, 4.0]]))
    assert (value, feature) == (pytest.approx(1.0), 8500)


def test_alignment_needs_directions():
    with pytest.raises(ValueError, match="none of them zero"):
        best_alignment(np.eye(3), np.zeros((1, 3)))
    with pytest.raises(ValueError, match="decoder has no row"):
        best_alignment(np.zeros((2, 3)), np.ones((1, 3)))
    with pytest.raises(ValueError, match="must be"):
        best_alignment(np.eye(3), np.ones(3))


def test_a_sweep_row_has_the_values_of_probe_and_dictionary():
    h, labels = rows_with_concept(3.0)
    row = sweep_layer(h, labels, np.eye(16), layer=4, seed=1)
    probe = fit_probe(h, labels, seed=1)
    assert row["layer"] == 4 and row["n"] == 120
    assert row["accuracy"] == probe.accuracy > 0.85
    assert row["fold_scores"] == list(probe.fold_scores)
    assert row["accuracy_std"] == pytest.approx(np.std(probe.fold_scores, ddof=1))
    assert row["accuracy_standard_error"] == pytest.approx(row["accuracy_std"] / np.sqrt(5))
    assert row["aligned_feature"] == 5
    w = probe.weight_vector
    assert row["alignment"] == pytest.approx(w[5] ** 2 / (w @ w))
    json.dumps(row, allow_nan=False)


def test_given_directions_replace_the_probe():
    h, labels = rows_with_concept(3.0)
    row = sweep_layer(h, labels, np.eye(16), layer=0, seed=1, directions=np.eye(16)[[2]])
    assert row["aligned_feature"] == 2 and row["alignment"] == pytest.approx(1.0)


def test_the_layer_with_the_concept_is_picked():
    table = pd.DataFrame(
        [
            sweep_layer(*rows_with_concept(strength, seed=layer), np.eye(16), layer=layer, seed=0)
            for layer, strength in enumerate([0.0, 1.0, 6.0, 1.0])
        ]
    )
    assert pick_layer(table) == 2
    assert bool(table["at_chance"][0]) and not bool(table["at_chance"][2])


def table_of(accuracy, alignment, error=0.02, layers=None):
    return pd.DataFrame(
        {
            "layer": layers or list(range(len(accuracy))),
            "accuracy": accuracy,
            "accuracy_standard_error": error,
            "alignment": alignment,
        }
    )


@pytest.mark.parametrize(
    ("accuracy", "alignment", "expected"),
    [
        ([0.70, 0.90, 0.80], [0.9, 0.1, 0.8], 1),  # Beyond one standard error accuracy decides,
        ([0.70, 0.90, 0.89], [0.9, 0.1, 0.8], 2),  # within it alignment,
        ([0.89, 0.90, 0.90], [0.5, 0.5, 0.5], 0),  # then the lowest layer.
    ],
)
def test_ties_within_one_standard_error(accuracy, alignment, expected):
    table = table_of(accuracy, alignment)
    assert pick_layer(table) == expected
    assert pick_layer(table.sample(frac=1, random_state=1)) == expected


def test_alignment_rule_and_layer_numbers():
    assert pick_layer(table_of([0.9, 0.5], [0.1, 0.4], layers=[7, 11]), rule="alignment") == 11


def test_bad_tables_are_refused():
    table = table_of([0.9, 0.5], [0.1, 0.4])
    with pytest.raises(ValueError, match="rule must be"):
        pick_layer(table, rule="best")
    with pytest.raises(ValueError, match=r"lacks the columns \['alignment'\]"):
        pick_layer(table.drop(columns="alignment"))
    with pytest.raises(DataError, match="undefined"):
        pick_layer(table_of([np.nan, 0.5], [0.1, 0.4]))
    with pytest.raises(DataError, match="empty"):
        pick_layer(table.iloc[:0])


def test_a_layer_with_identical_rows_has_no_direction_and_is_not_picked():
    h, labels = rows_with_concept(6.0)
    alike = sweep_layer(np.ones_like(h), labels, np.eye(16), layer=0, seed=0)
    assert alike["alignment"] is None and alike["aligned_feature"] is None and alike["at_chance"]
    json.dumps(alike, allow_nan=False)
    table = pd.DataFrame([alike, sweep_layer(h, labels, np.eye(16), layer=1, seed=0)])
    assert pick_layer(table) == 1
    with pytest.raises(DataError, match="at no layer"):
        pick_layer(table[:1])
