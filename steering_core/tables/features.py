"""The table of the features most correlated with the labels or most used by the QP."""

import numpy as np
import pandas as pd
from jaxtyping import Float

from steering_core.probes.linear_probe import LinearProbe
from steering_core.statistics.result import CorrelationResult
from steering_core.tables.columns import validate_table
from steering_core.tables.pages import neuronpedia_url


def feature_table(
    statistics: CorrelationResult,
    probe: LinearProbe,
    decoder: Float[np.ndarray, "d_sae d_model"],
    coefficient_share: Float[np.ndarray, " d_sae"],
    neuronpedia_id: str | None,
    experiment: str,
    *,
    top: int = 30,
) -> pd.DataFrame:
    """Return the ``top`` features by absolute correlation, and the ``top`` by coefficient share.

    The columns are those of ``features`` in ``columns.yaml``.

    Args:
        statistics: statistics of every feature on the training split.
        probe: fitted probe, oriented to the target class.
        decoder: decoder with unit-norm rows.
        coefficient_share: share of each feature in the QP coefficients, summed over test rows.
        neuronpedia_id: Neuronpedia id of the SAE, or None.
        experiment: name of the experiment.
        top: number of features taken from each ranking.
    """
    strength = np.nan_to_num(np.abs(statistics.correlation))
    chosen = _largest(strength, top) | _largest(coefficient_share, top)
    features = np.array(sorted(chosen, key=lambda i: (-strength[i], i)), dtype=int)
    direction = probe.weight_vector / np.linalg.norm(probe.weight_vector)
    table = pd.DataFrame(
        {
            "experiment": experiment,
            "feature": features,
            "correlation": statistics.correlation[features],
            "probe_alignment": decoder[features] @ direction,
            "active_fraction": statistics.active_fraction[features],
            "mean_positive": statistics.mean_positive[features],
            "mean_negative": statistics.mean_negative[features],
            "coefficient_share": coefficient_share[features],
            "url": [neuronpedia_url(neuronpedia_id, int(i)) for i in features],
        }
    )
    validate_table(table, "features")
    return table


def _largest(values: Float[np.ndarray, " d_sae"], top: int) -> set[int]:
    """Return the indices of the ``top`` largest values, leaving out those that are not positive."""
    order = np.argsort(-values, kind="stable")[:top]
    return set(order[values[order] > 0].tolist())
