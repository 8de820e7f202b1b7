"""The features most correlated with the labels or most used by the QP: their table and page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from steering_core.data.columns import is_missing
from steering_core.probes.linear_probe import LinearProbe
from steering_core.statistics.moments import CorrelationResult
from steering_core.tables.columns import validate_table
from steering_core.tables.pages import neuronpedia_url, require_columns, whole_page


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


@dataclass(frozen=True)
class _FeatureColumn:
    name: str
    heading: str
    style: str


_FEATURE_COLUMNS = (
    _FeatureColumn("correlation", "correlation with the label", "{:+.3f}"),
    _FeatureColumn("probe_alignment", "cosine with the probe", "{:+.3f}"),
    _FeatureColumn("active_fraction", "active on", "{:.2%}"),
    _FeatureColumn("mean_positive", "mean, label 1", "{:.3f}"),
    _FeatureColumn("mean_negative", "mean, label 0", "{:.3f}"),
)
_SHARE = _FeatureColumn("coefficient_share", "share of coefficients", "{:.1%}")


def features_page(df: pd.DataFrame, title: str, warnings: Sequence[str] = ()) -> str:
    """Build a sortable, searchable page of features, with a link to Neuronpedia if there is one.

    Args:
        df: columns ``feature`` (index), ``correlation``, ``probe_alignment`` (a cosine),
            ``active_fraction`` (share of examples), ``mean_positive``, ``mean_negative`` (mean
            activation at label 1 and at label 0), ``url`` (https, or empty); optionally
            ``coefficient_share``.
        title: the page's heading, plain text.
        warnings: warnings at the top of the page, plain text.

    Raises:
        ValueError: if a column is missing or a url is not https.

    """
    columns = [*_FEATURE_COLUMNS, *([_SHARE] if _SHARE.name in df.columns else [])]
    names = ("feature", "url", *(column.name for column in _FEATURE_COLUMNS))
    require_columns(df, names, "features page")
    largest = float(df["correlation"].abs().max()) if df["correlation"].notna().any() else 1.0
    largest = largest or 1.0
    return whole_page(
        "features.html.j2",
        title,
        warnings,
        headings=["feature", *(column.heading for column in columns)],
        rows=[_feature_row(row, columns, largest) for row in df.to_dict("records")],
        largest=largest,
    )


def _feature_row(
    row: Mapping[str, Any], columns: Sequence[_FeatureColumn], largest: float
) -> dict[str, Any]:
    feature = int(row["feature"])
    url = "" if is_missing(row["url"]) else str(row["url"])
    if url and not url.startswith("https://"):
        raise ValueError(f"features page: the url of feature {feature} must start with https://.")
    cells = []
    for column in columns:
        value = float(row[column.name])
        known = not np.isnan(value)
        bar = known and column.name == "correlation"
        cells.append(
            {
                "value": value if known else "",
                "shown": column.style.format(value) if known else "",
                "side": ("up" if value >= 0 else "down") if bar else "",
                "width": 50 * abs(value) / largest if bar else 0.0,
            }
        )
    correlation = float(row["correlation"])
    return {
        "feature": feature,
        "url": url,
        "size": 0.0 if np.isnan(correlation) else correlation,
        "cells": cells,
    }
