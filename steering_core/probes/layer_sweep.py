"""How well each layer separates the classes, and how well its SAE spans the concept.

Pass only training rows to these functions. The choice of a layer must not see the rows on which the
results are later judged.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Shaped

from steering_core.errors import DataError
from steering_core.models.site import site_at
from steering_core.probes.fit import REGULARISATIONS, fit_probe
from steering_core.progress import progress

_CHUNK = 4096


def best_alignment(
    decoder: Float[np.ndarray, "d_sae d_model"], directions: Float[np.ndarray, "k d_model"]
) -> tuple[float, int]:
    """Return the alignment min_j max_i cos²(d_i, w_j), in [0, 1], and the feature that attains it.

    Decoder rows of zero length are ignored.

    Args:
        decoder: a row per feature.
        directions: concept directions w_j, of any length; their sign does not matter.

    Raises:
        ValueError: if shapes do not fit, or a direction or the whole decoder is zero.
    """
    decoder, directions = np.asarray(decoder), np.asarray(directions, dtype=np.float64)
    if directions.ndim != 2 or decoder.ndim != 2 or decoder.shape[1:] != directions.shape[1:]:
        raise ValueError(
            f"decoder {decoder.shape} and directions {directions.shape} must be (d_sae, d_model) "
            "and (k, d_model)."
        )
    lengths = np.linalg.norm(directions, axis=1)
    if lengths.size == 0 or (lengths == 0).any():
        raise ValueError("directions must be non-empty and none of them zero.")
    units = (directions / lengths[:, None]).T
    squares = np.full((decoder.shape[0], lengths.size), -1.0)
    for start in range(0, decoder.shape[0], _CHUNK):
        rows = decoder[start : start + _CHUNK].astype(np.float64)
        norms = np.square(rows).sum(axis=1, keepdims=True)
        np.divide(
            np.square(rows @ units), norms, out=squares[start : start + _CHUNK], where=norms > 0
        )
    if squares.size == 0 or (squares < 0).all():
        raise ValueError("decoder has no row of positive length.")
    per_direction = squares.max(axis=0)
    bottleneck = int(per_direction.argmin())
    alignment = min(float(per_direction[bottleneck]), 1.0)
    return alignment, int(squares[:, bottleneck].argmax())


def sweep_layer(
    h: Float[np.ndarray, "n d_model"],
    labels: Shaped[np.ndarray, " n"],
    decoder: Float[np.ndarray, "d_sae d_model"],
    *,
    layer: int,
    seed: int,
    groups: Shaped[np.ndarray, " n"] | None = None,
    directions: Float[np.ndarray, "k d_model"] | None = None,
    regularisations: Sequence[float] = REGULARISATIONS,
    n_folds: int = 5,
    centred: bool = False,
) -> dict[str, Any]:
    """Return one row of the layer-sweep table.

    Args:
        h: activations of one layer on the training split.
        labels: two distinct values.
        decoder: writing directions of the layer's SAE.
        layer: number of the layer, copied into the row.
        seed: seed of the folds.
        groups: rows with equal values stay on one side of a fold.
        directions: concept directions to align with; the probe's own weight if None.
        regularisations: as in :func:`fit_probe`.
        n_folds: as in :func:`fit_probe`.
        centred: as in :func:`fit_probe`.

    Returns:
        ``layer``, ``accuracy`` (mean over folds), ``accuracy_std`` (over folds, ``ddof=1``),
        ``accuracy_standard_error`` (``accuracy_std`` / √folds), ``fold_scores`` (list),
        ``alignment`` in [0, 1], ``aligned_feature``, ``regularisation``, ``p_value``,
        ``at_chance``, ``n``. If nothing at the layer separates the classes, the probe's weight is
        zero, and ``alignment`` and ``aligned_feature`` are None.

    Raises:
        DataError, ValueError: as :func:`fit_probe` and :func:`best_alignment`.
    """
    probe = fit_probe(
        h,
        labels,
        seed=seed,
        groups=groups,
        regularisations=regularisations,
        n_folds=n_folds,
        centred=centred,
    )
    if directions is None:
        directions = probe.weight_vector[None, :]
    alignment, feature = None, None
    if np.any(directions):
        alignment, feature = best_alignment(decoder, directions)
    spread = float(np.std(probe.fold_scores, ddof=1))
    return {
        "layer": int(layer),
        "accuracy": probe.accuracy,
        "accuracy_std": spread,
        "accuracy_standard_error": spread / len(probe.fold_scores) ** 0.5,
        "fold_scores": list(probe.fold_scores),
        "alignment": alignment,
        "aligned_feature": feature,
        "regularisation": probe.regularisation,
        "p_value": probe.p_value,
        "at_chance": probe.at_chance,
        "n": probe.n_train,
    }


def pick_layer(table: pd.DataFrame, rule: str = "accuracy") -> int:
    """Choose a layer from the rows of :func:`sweep_layer`.

    Args:
        table: columns ``layer``, ``accuracy``, ``accuracy_standard_error``, ``alignment``.
        rule: "accuracy" takes the layer with the highest alignment among the layers whose
            accuracy is within one standard error (that of the most accurate layer) of the
            highest. "alignment" takes the layer with the highest alignment. The lowest layer wins
            ties.

    Raises:
        ValueError: if ``rule`` is unknown or ``table`` lacks a column.
        DataError: if ``table`` is empty or has an undefined accuracy, or if no layer has an
            alignment. A layer without an alignment has no direction to steer along, so it is not a
            candidate.
    """
    needed = ["layer", "accuracy", "accuracy_standard_error", "alignment"]
    missing = [name for name in needed if name not in table]
    if missing:
        raise ValueError(f"table lacks the columns {missing}.")
    if rule not in ("accuracy", "alignment"):
        raise ValueError(f"rule must be 'accuracy' or 'alignment', got {rule!r}.")
    if table.empty or table[needed[:-1]].isna().any(axis=None):
        raise DataError("the layer sweep is empty or has undefined values: run it again.")
    table = table[table["alignment"].notna()]
    if table.empty:
        raise DataError(
            "at no layer does the last token tell the classes apart: check the label column, or "
            "give other texts or more rows_per_class."
        )
    candidates = table
    if rule == "accuracy":
        ranked = table.sort_values(["accuracy", "layer"], ascending=[False, True])
        best = ranked.iloc[0]
        candidates = table[table["accuracy"] >= best["accuracy"] - best["accuracy_standard_error"]]
    ordered = candidates.sort_values(["alignment", "layer"], ascending=[False, True])
    return int(ordered["layer"].iloc[0])


def sweep_table(
    saes: Sequence[Mapping[str, Any]],
    train: pd.DataFrame,
    residuals_at: Callable[[str, Sequence[str]], Float[np.ndarray, "n d_model"]],
    decoder_at: Callable[[int], Float[np.ndarray, "d_sae d_model"]],
    experiment: str,
    settings: Any,
) -> pd.DataFrame:
    """Return the table ``sweep`` as ``columns.yaml`` describes it.

    Args:
        saes: SAEs of the cached layers, as described by the fetch stage.
        train: examples of the training split.
        residuals_at: function that returns residuals, from a site's hook name and example ids.
        decoder_at: function that returns the decoder of a layer's SAE.
        experiment: name of the experiment.
        settings: ``seed``, ``probe_folds`` and ``probe_regularisation``.

    """
    rows = []
    for sae in progress(saes, "sweeping layers"):
        site = site_at(sae)
        rows.append(
            sweep_layer(
                residuals_at(site.hook_name, train["example_id"]),
                train["label"].to_numpy(dtype=int),
                decoder_at(site.layer),
                layer=site.layer,
                seed=settings.seed,
                groups=train["group"].to_numpy(),
                regularisations=settings.probe_regularisation,
                n_folds=settings.probe_folds,
                centred=site.centred,
            )
        )
    sweep = pd.DataFrame(rows).drop(columns="fold_scores")
    sweep.insert(0, "experiment", experiment)
    sweep["picked"] = sweep["layer"] == pick_layer(sweep)
    return sweep
