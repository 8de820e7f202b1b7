"""A small linear world: two classes of residuals, a dictionary of unit rows, a probe."""

import numpy as np

from steering_core.methods.directions import FitData
from steering_core.probes.linear_probe import LinearProbe

D_MODEL, D_SAE = 12, 40


def decoder(seed: int = 0, d_sae: int = D_SAE, d_model: int = D_MODEL) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((d_sae, d_model))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def concept() -> np.ndarray:
    """The direction in which the classes differ."""
    direction = np.random.default_rng(5).standard_normal(D_MODEL)
    return direction / np.linalg.norm(direction)


def fit_data(target_class: int = 1, seed: int = 0) -> FitData:
    """Residuals, pairs and personas that all differ along :func:`concept`, with noise."""
    rng = np.random.default_rng(7)
    labels = np.arange(200) % 2
    sides = np.where(labels == 1, 1.0, -1.0)[:, None]
    residuals = 1.5 * sides * concept() + rng.standard_normal((200, D_MODEL))
    features = np.maximum(residuals @ decoder().T, 0)
    correlation = np.array([np.corrcoef(column, labels)[0, 1] for column in features.T])
    noise = [0.3 * rng.standard_normal((30, D_MODEL)) for _ in range(4)]
    common = rng.standard_normal((30, D_MODEL))
    return FitData(
        residuals=residuals,
        labels=labels,
        contrast_positive=common + concept() + noise[0],
        contrast_negative=common - concept() + noise[1],
        persona_positive=common + 2 * concept() + noise[2],
        persona_negative=common - concept() + noise[3],
        feature_correlation=correlation,
        target_class=target_class,
        seed=seed,
    )


def probe() -> LinearProbe:
    """A probe of class 1."""
    return LinearProbe(
        weight_vector=1.3 * concept() + 0.1 * decoder()[3],
        bias=-0.2,
        classes=(0, 1),
        regularisation=1.0,
        accuracy=0.9,
        fold_scores=(0.9, 0.9),
        p_value=0.0,
        at_chance=False,
        n_train=200,
    )


def inputs(n: int = 25) -> np.ndarray:
    """Residuals on both sides of the probe, some of them far on the right one."""
    rng = np.random.default_rng(11)
    return rng.standard_normal((n, D_MODEL)) + np.linspace(-2, 3, n)[:, None] * concept()
