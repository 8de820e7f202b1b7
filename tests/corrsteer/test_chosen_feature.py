"""The comparison of a chosen feature with the planted sentiment."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from steering_core.corrsteer.planted_feature import areas_under_curve, chosen_feature
from steering_core.errors import DataError


def test_areas_are_those_of_scikit_learn_with_ties():
    rng = np.random.default_rng(0)
    positive = rng.random(60) < 0.4
    activations = np.maximum(rng.normal(size=(60, 5)).round(1), 0)
    activations[:, 4] = 0
    expected = [roc_auc_score(positive, column) for column in activations.T]
    np.testing.assert_allclose(areas_under_curve(activations, positive), expected)


def test_one_class_has_no_curve():
    with pytest.raises(DataError, match="both classes"):
        areas_under_curve(np.zeros((3, 2)), np.ones(3, dtype=bool))


def test_the_feature_is_that_of_the_steered_layer():
    plan = pd.DataFrame({"layer": [1, 1, 2, 3], "feature": [5, 6, 7, None]}).assign(
        steered=[True, False, True, None]
    )
    answers = pd.DataFrame({"layers": [[2], [2]]})
    assert chosen_feature(answers, plan) == (2, 7)
    with pytest.raises(DataError, match="2 features"):
        chosen_feature(pd.DataFrame({"layers": [[1, 2]]}), plan)
