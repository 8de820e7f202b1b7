import numpy as np
import pytest
from scipy import sparse

from steering_core.optimize.working_set.bounds import (
    Limits,
    ablation_limits,
    box_limits,
    prefilter,
    relevance,
)


def test_activation_half_takes_active_features_only():
    activations = np.zeros((2, 10))
    activations[0, [7, 8, 9]] = [3.0, 1.0, 2.0]
    scores = np.arange(10.0)[::-1]
    mask = prefilter(activations, scores, n_features=4)
    assert np.flatnonzero(mask[0]).tolist() == [0, 1, 7, 9]
    assert np.flatnonzero(mask[1]).tolist() == [0, 1]  # nothing active: not filled up


def test_relevance_ignores_the_length_of_rows():
    decoder = np.array([[3.0, 0.0], [1.0, 0.0], [0.0, 0.0], [1.0, 1.0]])
    np.testing.assert_allclose(
        relevance(decoder, np.array([[-2.0, 0.0], [0.0, 1.0]])), [2.0, 2.0, 0.0, np.sqrt(2)]
    )


def test_scores_may_be_a_list():
    activations = np.array([[0.0, 0.0, 1.0]])
    assert prefilter(activations, [1.0, 3.0, 2.0], 2).tolist() == [[False, True, True]]


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: prefilter(np.ones((1, 3)), np.ones(4)), "scores"),
        (lambda: prefilter(np.ones((1, 3)), [1.0, 2.0]), "scores"),
        (lambda: prefilter(np.ones((1, 3)), [1.0, np.nan, 2.0]), "scores"),
        (lambda: relevance(np.eye(3), np.ones(2)), "directions"),
        (lambda: relevance(np.eye(3), np.ones((1, 1, 3))), "directions"),
        (lambda: relevance(np.eye(3), [1.0, np.nan, 0.0]), "directions"),
        (lambda: ablation_limits(np.ones(4)).rows(0, 1, 3), "activations"),
        (lambda: box_limits(np.ones(4), 1.0).rows(0, 1, 3), "largest"),
        (lambda: prefilter(np.ones((1, 3)), np.ones(3), 1), "n_features"),
        (lambda: prefilter(np.ones((1, 3)), np.ones(3), 2.5), "n_features"),
        (lambda: prefilter(np.ones((1, 3)), np.ones(3), None), "n_features"),
        (lambda: ablation_limits([-1.0]), "activations"),
        (lambda: ablation_limits([[1.0], [1.0, 2.0]]), "activations"),
        (lambda: ablation_limits(["much"]), "activations"),
        (lambda: Limits(up="much").rows(0, 1, 3), "up"),
        (lambda: Limits(down=[[1.0], [1.0, 2.0]]).rows(0, 2, 2), "down"),
        (lambda: Limits(up=[[1.0, 1.0], [1.0, np.nan]]).rows(0, 2, 2), "up"),
        (lambda: Limits(down=sparse.csr_array([[1.0, -1.0]])).rows(0, 1, 2), "down"),
        (lambda: box_limits([1.0], "much"), "factor"),
        (lambda: box_limits([1.0], 0.0), "factor"),
        (lambda: box_limits([-1.0], 1.0), "largest"),
    ],
)
def test_bad_input_is_named(call, name):
    with pytest.raises(ValueError, match=name):
        call()
