"""Curves at the matched effect where some resamples of the prompts do not reach it."""

import numpy as np
import pandas as pd
import pytest

from steering_core.statistics.matched_effect import EffectCurve
from steering_core.tables.effect_curves import Curve, Points, against, at_the_effect

EFFECT = 0.2


def curve(name: str, kl: float, reached: np.ndarray) -> Curve:
    """Return a curve of two strengths of which the stronger one has the effect, or 0.19.

    Args:
        name: of the method.
        kl: of the stronger strength.
        reached: of the estimate and of each resample.
    """
    effects = np.where(reached, EFFECT, 0.19) * np.array([[0.5], [1.0]])
    fitted = EffectCurve.fit(np.outer([kl / 4, kl], np.ones(len(reached))), effects)
    return Curve(name, "alpha", "dense", np.arange(2), fitted, fitted.reaches(EFFECT))


def points(reached: np.ndarray, l0: tuple[float, float]) -> tuple[Points, pd.DataFrame]:
    n = len(reached)
    about = pd.DataFrame({"method": "a", "curve": "alpha", "strength": [1.0, 2.0]})
    found = Points(
        about,
        40,
        kl=np.outer([0.01, 0.04], np.ones(n)),
        log_perplexity=np.ones((2, n)),
        base_log_perplexity=np.ones(n),
        residual_norm=np.outer([1.0, 2.0], np.ones(n)),
        l0=np.outer(l0, np.ones(n)),
        effects={},
        unsteered={},
    )
    return found, about


def resamples(*shares: tuple[float, bool]) -> np.ndarray:
    """Return the estimate, which reaches the effect, and 100 resamples that do or do not."""
    return np.concatenate([[True], *(np.full(round(100 * n), there) for n, there in shares)])


def test_a_call_rests_on_every_resample_also_on_those_where_neither_is_there():
    # The dense curve is there in 56 of 100 resamples and costs less; the sparse one in 52 of these.
    dense = curve("dense", 0.01, resamples((0.56, True), (0.44, False)))
    sparse = curve("sparse", 0.0314, resamples((0.52, True), (0.48, False)))
    cells = against(sparse, dense, EFFECT)
    assert cells["kl_ratio"] == pytest.approx(3.14)
    # It is dearer in 56 of 100. Of the 56 alone, it would be in all.
    assert cells["kl_ratio_ci_low"] == 0 and np.isnan(cells["kl_ratio_ci_high"])
    ends = [cells[f"{name}_ci_{end}"] for name in ("kl_difference", "effect_difference")
            for end in ("low", "high")]  # fmt: skip
    assert np.isnan(ends).all()


def test_a_reference_costs_itself_in_every_resample():
    dense = curve("dense", 0.01, resamples((0.56, True), (0.44, False)))
    cells = against(dense, dense, EFFECT)
    for name, value in (("kl_ratio", 1), ("kl_difference", 0), ("effect_difference", 0)):
        assert [cells[f"{name}{end}"] for end in ("", "_ci_low", "_ci_high")] == [value] * 3


def test_no_cost_has_a_closed_end_where_the_effect_is_not_reached():
    reached = resamples((0.9, True), (0.1, False))
    found, about = points(reached, l0=(3.0, 5.0))
    cells = at_the_effect(found, about, curve("a", 0.04, reached))
    assert cells["reached_share"] == pytest.approx(0.9)
    for name in ("kl", "residual_norm", "l0"):
        assert np.isfinite(cells[f"{name}_ci_low"]) and np.isnan(cells[f"{name}_ci_high"])
    assert cells["perplexity"] == pytest.approx(np.e)
    assert np.isnan([cells["perplexity_ci_low"], cells["perplexity_ci_high"]]).all()
    rarely = resamples((0.99, True), (0.01, False))
    found, about = points(rarely, l0=(3.0, 5.0))
    cells = at_the_effect(found, about, curve("a", 0.04, rarely))
    assert cells["perplexity_ci_high"] == pytest.approx(np.e) and cells["l0_ci_high"] == 5


def test_a_vector_of_one_make_has_its_number_of_features_at_any_length():
    reached = resamples((0.9, True), (0.1, False))
    found, about = points(reached, l0=(5.0, 5.0))
    cells = at_the_effect(found, about, curve("a", 0.04, reached))
    assert (cells["l0"], cells["l0_ci_low"], cells["l0_ci_high"]) == (5, 5, 5)
