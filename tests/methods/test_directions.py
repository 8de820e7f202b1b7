"""Each fixed method against a direct computation, and the way it points."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_world import D_MODEL, concept, decoder, fit_data, inputs, probe

from steering_core.config.methods import METHODS, WITHOUT_VECTOR, is_program
from steering_core.config.schema import Settings
from steering_core.errors import StorageError
from steering_core.methods import (
    CAAContrastive,
    CAAMeanDiff,
    CAARepE,
    NoSteering,
    RandomDirection,
    SingleFeature,
    TopKFeatures,
)
from steering_core.methods.base import read_direction
from steering_core.methods.directions import fit_directions, fixed_methods

LEARNED = [CAAMeanDiff, CAAContrastive, CAARepE, SingleFeature, TopKFeatures]
D = decoder()


def normalised(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


@pytest.mark.parametrize("target_class", [0, 1])
@pytest.mark.parametrize("method", LEARNED)
def test_steers_a_probe_towards_the_target_class(method: type, target_class: int):
    data = fit_data(target_class)
    vector = (
        method(strength=0.5)
        .fit(data, D)
        .compute_steering_vector(
            inputs()[0], probe().weight_vector, probe().bias, D, target_class=target_class
        )
    )
    towards = probe().oriented(target_class)
    assert towards.decision((inputs()[0] + vector)[None])[0] > towards.decision(inputs()[:1])[0]


@pytest.mark.parametrize("target_class", [0, 1])
@pytest.mark.parametrize("method", [*LEARNED, RandomDirection])
def test_unit_norm_and_strength_in_residual_norms(method: type, target_class: int):
    data = fit_data(target_class)
    fitted = method(strength=0.7).fit(data, D)
    assert np.linalg.norm(fitted.direction.vector) == pytest.approx(1, abs=1e-12)
    vector = fitted.compute_steering_vector(
        np.zeros(D_MODEL), np.zeros(D_MODEL), 0.0, D, target_class=target_class
    )
    unit = np.mean([np.linalg.norm(row) for row in data.residuals])
    np.testing.assert_allclose(vector, 0.7 * unit * fitted.direction.vector, rtol=1e-12)


def test_mean_difference():
    data = fit_data()
    ones = data.residuals[data.labels == 1].mean(axis=0)
    zeros = data.residuals[data.labels == 0].mean(axis=0)
    found = CAAMeanDiff().find(data, D).vector
    np.testing.assert_allclose(found, normalised(ones - zeros), atol=1e-12)


def test_contrastive_uses_the_pairs_alone():
    data = fit_data()
    pairs = zip(data.contrast_positive, data.contrast_negative, strict=True)
    want = normalised(np.mean([positive - negative for positive, negative in pairs], axis=0))
    np.testing.assert_allclose(CAAContrastive().find(data, D).vector, want, atol=1e-12)
    other = replace(data, residuals=-data.residuals, persona_positive=data.persona_negative)
    np.testing.assert_allclose(CAAContrastive().find(other, D).vector, want, atol=1e-12)


def test_repe_is_the_first_component_of_uncentred_differences():
    data = fit_data()
    differences = data.persona_positive - data.persona_negative
    values, vectors = np.linalg.eigh(differences.T @ differences)
    found = CAARepE().find(data, D).vector
    assert abs(found @ vectors[:, np.argmax(values)]) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("rotation", range(6))
def test_repe_sign_is_that_of_the_mean_difference(rotation: int):
    # The sign of a singular vector is arbitrary; every world must still point the right way.
    q, _ = np.linalg.qr(np.random.default_rng(rotation).standard_normal((D_MODEL, D_MODEL)))
    data = fit_data()
    turned = replace(
        data, persona_positive=data.persona_positive @ q, persona_negative=data.persona_negative @ q
    )
    assert CAARepE().find(turned, D).vector @ (concept() @ q) > 0.9
    swapped = replace(
        data, persona_positive=data.persona_negative, persona_negative=data.persona_positive
    )
    assert CAARepE().find(swapped, D).vector @ concept() < -0.9


@pytest.mark.parametrize("target_class", [0, 1])
def test_single_feature_is_the_most_correlated_with_the_target_class(target_class: int):
    data = fit_data(target_class)
    found = SingleFeature().find(data, D)
    signed = data.feature_correlation * (1 if target_class == 1 else -1)
    best = int(np.argmax(signed))
    assert best != 0
    assert found.features.tolist() == [best]
    np.testing.assert_allclose(found.vector, D[best], atol=1e-12)


def test_single_feature_never_takes_one_that_speaks_against_the_target():
    correlation = np.full(40, 0.1)
    correlation[17], correlation[4] = -0.9, 0.3
    data = replace(fit_data(), feature_correlation=correlation)
    assert SingleFeature().find(data, D).features.tolist() == [4]
    assert SingleFeature().find(replace(data, target_class=0), D).features.tolist() == [17]


@pytest.mark.parametrize("method", [SingleFeature, TopKFeatures])
def test_constant_features_and_zero_rows_do_not_compete(method: type):
    data = fit_data()
    correlation = data.feature_correlation.copy()
    order = np.argsort(-np.abs(correlation))
    correlation[order[0]] = np.nan
    zeroed = D.copy()
    zeroed[order[1]] = 0
    found = method().find(replace(data, feature_correlation=correlation), zeroed)
    assert not set(found.features) & set(order[:2].tolist())
    with pytest.raises(ValueError, match="no feature varies"):
        method().find(replace(data, feature_correlation=np.full(40, np.nan)), D)


@pytest.mark.parametrize("k", [1, 3, 40, 100])
def test_topk_weights_by_correlation(k: int):
    data = fit_data(target_class=0)
    found = TopKFeatures(k=k).find(data, D)
    order = np.argsort(-np.abs(data.feature_correlation))[:k]
    want = -data.feature_correlation[order] @ D[order]
    np.testing.assert_allclose(found.vector, normalised(want), atol=1e-12)
    assert set(found.features) == set(order)


@pytest.mark.parametrize("method", [SingleFeature, TopKFeatures])
def test_coefficients_give_the_vector_also_when_rows_are_not_unit(method: type):
    rows = D * np.linspace(0.5, 2, 40)[:, None]
    found = method().find(fit_data(), rows)
    np.testing.assert_allclose(found.coefficients @ rows[found.features], found.vector, atol=1e-12)


def test_random_direction_follows_its_seed_alone():
    one, two = (RandomDirection().find(fit_data(seed=3), D).vector for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert abs(one @ RandomDirection().find(fit_data(seed=4), D).vector) < 0.999
    np.testing.assert_array_equal(one, RandomDirection().find(fit_data(0, seed=3), D).vector)


def test_no_steering_adds_nothing():
    vector = (
        NoSteering()
        .fit(fit_data(), D)
        .compute_steering_vector(np.ones(D_MODEL), np.ones(D_MODEL), 0.0, D)
    )
    np.testing.assert_array_equal(vector, np.zeros(D_MODEL))


def test_misuse_is_refused():
    with pytest.raises(ValueError, match="not fitted"):
        CAAMeanDiff().compute_steering_vector(np.ones(D_MODEL), np.ones(D_MODEL), 0.0, D)
    fitted = CAAMeanDiff().fit(fit_data(target_class=1), D)
    with pytest.raises(ValueError, match="target_class is 0, fitted was 1"):
        fitted.compute_steering_vector(np.ones(D_MODEL), np.ones(D_MODEL), 0.0, D, target_class=0)
    for strength in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="strength"):
            CAAMeanDiff(strength)
    with pytest.raises(ValueError, match="k must be"):
        TopKFeatures(k=0)
    same = replace(fit_data(), contrast_negative=fit_data().contrast_positive)
    with pytest.raises(ValueError, match="caa_contrastive: the direction is zero"):
        CAAContrastive().find(same, D)


def test_fixed_methods_are_those_configured():
    everything = fixed_methods(Settings(topk=4))
    configured = {m for m in METHODS if not is_program(m)}
    assert {m.name for m in everything} == configured - {*WITHOUT_VECTOR}  # they add no direction
    assert next(m for m in everything if m.name == "topk_features").k == 4
    some = fixed_methods(Settings(methods=["no_steering", "caa_repe", "qp_optimal"]))
    assert [m.name for m in some] == ["no_steering", "caa_repe"]


def test_directions_are_written_and_read(tmp_path: Path):
    data = fit_data(target_class=0)
    methods = fixed_methods(Settings(methods=["no_steering", "caa_mean_diff", "topk_features"]))
    for name in ("a", "b"):
        fit_directions(methods, data, D, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    found, unit = read_direction(tmp_path / "a", "topk_features")
    want = TopKFeatures().find(data, D)
    assert unit == pytest.approx(data.residual_norm)
    np.testing.assert_array_equal(found.vector, want.vector)
    np.testing.assert_array_equal(found.features, want.features)
    assert read_direction(tmp_path / "a", "caa_mean_diff")[0].features is None
    with pytest.raises(StorageError, match="no direction of caa_repe"):
        read_direction(tmp_path / "a", "caa_repe")
