"""The layer sweep as a table: one row per cached layer, with the picked layer marked."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from steering_core.models.resources import site_at
from steering_core.probes.layer_sweep import pick_layer, sweep_layer
from steering_core.progress import progress
from steering_core.tables.columns import validate_table


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
    validate_table(sweep, "sweep")
    return sweep
