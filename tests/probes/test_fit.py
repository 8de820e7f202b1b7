import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from steering_core.errors import DataError
from steering_core.probes import fit as fit_module
from steering_core.probes.fit import evaluate_probe, fit_probe


def concept_rows(seed=0, n=200, d=20, strength=3.0, balance=0.5):
    """Anisotropic rows with a large common offset, shifted along one direction by the label."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < balance).astype(int)
    scale = np.exp(rng.normal(size=d))
    offset = 30 * rng.normal(size=d)
    direction = np.random.default_rng(99).normal(size=d) / np.sqrt(d)
    h = offset + scale * (rng.normal(size=(n, d)) + strength * np.outer(labels - 0.5, direction))
    return h, labels


def sklearn_pipeline(regularisation):
    return make_pipeline(StandardScaler(), LogisticRegression(C=regularisation, max_iter=5000))


@pytest.mark.parametrize("shape", [(200, 20), (60, 300)])
def test_raw_coordinates_equal_the_sklearn_pipeline(shape):
    h, labels = concept_rows(n=shape[0], d=shape[1])
    h[:, 3] = 7.0  # A column without variance.
    probe = fit_probe(h, labels, seed=0)
    reference = sklearn_pipeline(probe.regularisation).fit(h, labels)
    scale = reference[0].scale_  # 1 for the column without variance
    floor = 0.1 * np.median(np.delete(scale, 3))
    assert (scale < floor).any() == (shape[1] == 300), "one case has columns below the floor"
    reference[0].scale_ = np.maximum(scale, floor)
    reference[1].fit(reference[0].transform(h), labels)
    fresh, _ = concept_rows(seed=5, n=50, d=shape[1])
    fresh[:, 3] = 7.0
    assert_allclose(probe.decision(fresh), reference.decision_function(fresh), atol=1e-8)
    assert_array_equal(probe.predict(fresh), reference.predict(fresh))
    assert probe.weight_vector[3] == 0
    assert probe.n_train == shape[0]


def test_regularisation_is_the_best_in_cross_validation():
    h, labels = concept_rows(seed=5, n=120, d=60, strength=1.5)
    grid = (1e-4, 1e-2, 1.0, 100.0)
    each = [fit_probe(h, labels, seed=3, regularisations=[c]) for c in grid]
    chosen = fit_probe(h, labels, seed=3, regularisations=grid)
    accuracies = [probe.accuracy for probe in each]
    assert len(set(accuracies)) > 1
    assert chosen.accuracy == max(accuracies)
    assert chosen.regularisation == grid[int(np.argmax(accuracies))]
    assert len(chosen.fold_scores) == 5
    assert chosen.accuracy == pytest.approx(np.mean(chosen.fold_scores))


def even_rows(n=300, d=64):
    """Rows whose columns vary alike, shifted along one direction by the label."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, n)
    h = rng.normal(size=(n, d)) + 3 * np.outer(labels - 0.5, rng.normal(size=d) / np.sqrt(d))
    return h, labels, rng.normal(size=n)


@given(exponent=st.floats(-6, 0), offset=st.sampled_from([0.0, 1.0, 1000.0]))
@settings(max_examples=12, deadline=None)
def test_a_nearly_constant_column_does_not_dominate_the_weight(exponent, offset):
    """1000 ± 1e-3 used to raise the norm of the weight from 2 to 27 and more."""
    h, labels, noise = even_rows()
    kwargs = {"seed": 0, "regularisations": [0.01], "n_folds": 2}
    norm = np.linalg.norm(fit_probe(h, labels, **kwargs).weight_vector)
    spread = 10.0**exponent
    probe = fit_probe(np.column_stack([h, offset + spread * noise]), labels, **kwargs)
    # Its own part is largest at the floor, a tenth of the others' spread; below, it vanishes.
    assert np.linalg.norm(probe.weight_vector) < 2 * norm
    if spread < 1e-3:
        assert abs(probe.weight_vector[-1]) < 0.05 * norm


def test_a_warning_gives_the_number_and_weight_share_of_nearly_constant_columns(caplog):
    h, labels, noise = even_rows()
    fit_probe(h, labels, seed=0, n_folds=2)
    assert caplog.text == ""
    probe = fit_probe(
        np.column_stack([h, np.full(300, 7.0), 1000 + 0.02 * noise]), labels, seed=0, n_folds=2
    )
    share = abs(probe.weight_vector[65]) / np.linalg.norm(probe.weight_vector)
    assert share > 1e-3
    assert "1 of 66 columns vary less than 0.1 times as much as the median column" in caplog.text
    assert f"column 65; they are divided by this floor and carry {share:.2g}" in caplog.text


def test_separable_classes_are_found_and_noise_is_at_chance():
    good = fit_probe(*concept_rows(strength=6.0), seed=0)
    assert good.accuracy > 0.95 and not good.at_chance and good.p_value < 1e-6
    noise = fit_probe(*concept_rows(strength=0.0), seed=0, regularisations=[0.1])
    assert noise.at_chance and noise.p_value >= 0.05


def test_guessing_the_larger_class_is_chance():
    h, labels = concept_rows(strength=0.0, balance=0.9, n=300)
    probe = fit_probe(h, labels, seed=0, regularisations=[1e-4])
    assert probe.accuracy > 0.8
    assert probe.at_chance


def test_groups_stay_on_one_side():
    """Twins with random labels: only a probe that sees the twin of a test row can beat chance."""
    rng = np.random.default_rng(0)
    base, labels = rng.normal(size=(60, 200)), rng.integers(0, 2, 60)
    h = np.repeat(base, 2, axis=0) + 0.01 * rng.normal(size=(120, 200))
    labels, groups = np.repeat(labels, 2), np.repeat(np.arange(60), 2)
    leaking = fit_probe(h, labels, seed=0)
    honest = fit_probe(h, labels, seed=0, groups=groups)
    assert leaking.accuracy > 0.7
    assert honest.accuracy < 0.65


def test_the_same_seed_gives_the_same_probe():
    h, labels = concept_rows(strength=1.0)
    one, two = (fit_probe(h, labels, seed=7) for _ in range(2))
    assert_array_equal(one.weight_vector, two.weight_vector)
    assert one.fold_scores == two.fold_scores
    other = fit_probe(h, labels, seed=8)
    assert one.fold_scores != other.fold_scores


def test_centred_weights_leave_logits_of_centred_rows_unchanged():
    h, labels = concept_rows()
    h = (h - h.mean(axis=1, keepdims=True)).astype(np.float32)
    plain = fit_probe(h, labels, seed=0)
    centred = fit_probe(h, labels, seed=0, centred=True)
    assert abs(plain.weight_vector.mean()) > 1e-4, "the projection has something to do"
    assert abs(centred.weight_vector.mean()) < 1e-12
    fresh, _ = concept_rows(seed=4)
    fresh -= fresh.mean(axis=1, keepdims=True)
    assert_allclose(centred.decision(fresh), plain.decision(fresh), atol=1e-8)


def test_rows_that_are_not_centred_are_refused():
    h, labels = concept_rows()
    with pytest.raises(DataError, match="do not have mean zero"):
        fit_probe(h, labels, seed=0, centred=True)


def test_labels_may_be_booleans_or_strings():
    h, labels = concept_rows(strength=6.0)
    named = np.where(labels == 1, "toxic", "neutral")
    probe = fit_probe(h, named, seed=0)
    assert probe.classes == ("neutral", "toxic")
    assert (probe.predict(h) == named).mean() > 0.95
    assert fit_probe(h, labels.astype(bool), seed=0).classes == (False, True)


def test_evaluation_on_other_rows():
    h, labels = concept_rows(strength=4.0, n=400)
    probe = fit_probe(h[:200], labels[:200], seed=0)
    report = evaluate_probe(probe, h[200:], labels[200:])
    logits = probe.decision(h[200:])
    assert report.accuracy == pytest.approx(((logits > 0) == labels[200:]).mean())
    assert report.auc == pytest.approx(roc_auc_score(labels[200:], logits))
    assert report.n == 200 and not report.at_chance
    turned = evaluate_probe(probe.oriented(0), h[200:], labels[200:])
    assert (turned.accuracy, turned.auc) == pytest.approx((report.accuracy, report.auc))
    shuffled = np.random.default_rng(0).permutation(labels[200:])
    assert evaluate_probe(probe, h[200:], shuffled).at_chance


def test_p_value_is_the_binomial_tail():
    h, labels = concept_rows(n=60)
    probe = fit_probe(h, labels, seed=0)
    # Ten rows on either side by the probe's own logits; labels right for 8 of 10 in each.
    order = np.argsort(probe.decision(h))
    rows = h[np.r_[order[:10], order[-10:]]]
    assert_array_equal(probe.predict(rows), [0] * 10 + [1] * 10)
    truth = np.array([1] * 2 + [0] * 8 + [1] * 8 + [0] * 2)
    report = evaluate_probe(probe, rows, truth)
    assert (report.accuracy, report.chance) == (0.8, 0.5)
    assert report.p_value == pytest.approx(6196 / 2**20)  # Σ_{k≥16} C(20, k) / 2²⁰


def test_label_errors_are_named():
    h, labels = concept_rows(n=40)
    with pytest.raises(DataError, match="two classes, found 1"):
        fit_probe(h, np.zeros(40), seed=0)
    with pytest.raises(DataError, match="two classes, found 3"):
        fit_probe(h, np.arange(40) % 3, seed=0)
    few = np.zeros(40, dtype=int)
    few[:3] = 1
    with pytest.raises(DataError, match="class 1 has 3 rows, too few for 5 folds"):
        fit_probe(h, few, seed=0)
    with pytest.raises(DataError, match="class 1 has 2 groups"):
        fit_probe(h, labels, seed=0, groups=np.where(labels == 1, np.arange(40) % 2, np.arange(40)))
    probe = fit_probe(h, labels, seed=0)
    with pytest.raises(DataError, match="found 1"):
        evaluate_probe(probe, h, np.ones(40))
    with pytest.raises(DataError, match="the probe was fitted on"):
        evaluate_probe(probe, h, labels + 1)


def test_activation_errors_are_named():
    h, labels = concept_rows(n=40)
    h[17, 2] = np.nan
    with pytest.raises(DataError, match=r"NaN .* in 1 of 40 rows, the first of them row 17"):
        fit_probe(h, labels, seed=0)
    h[17, 2] = 0.0
    with pytest.raises(ValueError, match="labels must have shape"):
        fit_probe(h, labels[:-1], seed=0)
    with pytest.raises(ValueError, match="groups must have shape"):
        fit_probe(h, labels, seed=0, groups=np.arange(3))
    with pytest.raises(ValueError, match="regularisations"):
        fit_probe(h, labels, seed=0, regularisations=[0.0, 1.0])
    with pytest.raises(ValueError, match="n_folds"):
        fit_probe(h, labels, seed=0, n_folds=1)


def test_groups_that_cannot_be_divided_are_an_error():
    groups = np.array([0, 0, 0, 1, 1, 1])
    positive = np.array([True, True, True, False, False, False])
    with pytest.raises(DataError, match="cannot be divided into 2 folds"):
        fit_module._folds(positive, groups, 2, 0)


def test_the_p_value_is_corrected_for_the_number_of_penalties():
    h, labels = concept_rows(strength=1.0, n=100)
    one = fit_probe(h, labels, seed=0, regularisations=[0.1])
    same = fit_probe(h, labels, seed=0, regularisations=[0.1, 0.1 + 1e-12, 0.1 + 2e-12])
    assert same.fold_scores == one.fold_scores
    assert same.p_value == pytest.approx(min(1.0, 3 * one.p_value)) and one.p_value < 0.3
