"""Gates: the half-space where a method acts, and the rows of a gated method."""

import numpy as np
import pandas as pd
import pytest

from steering_core.errors import DataError
from steering_core.methods.gates import Gate, feature_gate, gated_rows

RNG = np.random.default_rng(0)
H = RNG.standard_normal((60, 5))
ROW, BIAS = RNG.standard_normal(5), 0.3


def relu(given):
    return np.maximum(given @ ROW + BIAS, 0.0)


def jump(given):
    pre = given @ ROW + BIAS
    return np.where(pre > 0.8, pre, 0.0)


def test_a_gate_on_the_probe_is_open_below_its_logit():
    gate = Gate.probe_below(ROW, BIAS, 0.5)
    assert np.array_equal(gate.open(H), H @ ROW + BIAS < 0.5)


@pytest.mark.parametrize("encode", [relu, jump])
@pytest.mark.parametrize("above", [0.0, 0.5, 1.2])
@pytest.mark.parametrize("length", [1.0, 7.0])
def test_a_gate_on_a_feature_is_open_where_it_is_active(encode, above, length):
    gate = feature_gate(length * ROW, encode, above, H, "feature 3")
    assert np.array_equal(gate.open(H), encode(H) > above)
    threshold = max(above, 0.8) if encode is jump else above  # also at residuals between the rows
    near = ROW / (ROW @ ROW) * (threshold - BIAS + np.array([[-1e-6], [1e-6]]))
    assert gate.open(near).tolist() == [False, True]


def test_a_feature_that_tells_no_texts_apart_is_refused():
    with pytest.raises(DataError, match="above 99 at none of the training rows"):
        feature_gate(ROW, relu, 99.0, H, "feature 3")
    with pytest.raises(DataError, match="at all of the training rows"):
        feature_gate(ROW, lambda given: np.ones(len(given)), 0.5, H, "feature 3")


def test_a_feature_that_depends_on_others_is_refused():
    def topk(given):
        pre = given @ ROW + BIAS
        return np.where(pre > given[:, 0], np.maximum(pre, 0.0), 0.0)

    with pytest.raises(DataError, match="more than its own encoder row"):
        feature_gate(ROW, topk, 0.0, H, "feature 3")


def test_sizes_are_those_at_the_last_token_and_prompts_keep_their_vectors():
    rows = pd.DataFrame(
        {
            "method": "plain",
            "strength_index": 0,
            "example_id": ["t0", "t1", "p0", "p1", "t2"],
            "split": ["test", "test", "prompt", "validation_prompt", "validation"],
            "status": ["fixed"] * 4 + ["infeasible"],
            "residual_norm": [2.0, 2.0, 2.0, 2.0, np.nan],
            "l0": [np.nan] * 5,
            "l1": [1.0, 1.0, 1.0, 1.0, np.nan],
        }
    )
    vectors = np.array([[2.0, 0.0]] * 4 + [[np.nan, np.nan]])
    opened = {"t0": True, "t1": False, "p0": False, "p1": True, "t2": False}
    gated, different, index = gated_rows("mine", rows, vectors, opened)
    assert (gated["method"] == "mine").all() and gated["status"].tolist() == rows["status"].tolist()
    assert gated["residual_norm"].fillna(-1).tolist() == [2.0, 0.0, 0.0, 2.0, -1.0]
    assert (
        gated["l1"].fillna(-1).tolist() == [1.0, 0.0, 0.0, 1.0, -1.0] and gated["l0"].isna().all()
    )
    added = different[index]
    assert added[:4].tolist() == [[2, 0], [0, 0], [2, 0], [2, 0]] and np.isnan(added[4]).all()
    assert len(different) == 3
