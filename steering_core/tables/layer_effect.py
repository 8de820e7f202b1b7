"""Layers by what steering costs there: the table of the trials, and the layer that is taken."""

from typing import Any

import numpy as np
import pandas as pd

from steering_core.config.methods import BASELINE
from steering_core.errors import DataError
from steering_core.tables.caveats import warnings_cell
from steering_core.tables.columns import column_names, validate_table
from steering_core.tables.effect_curves import at_the_effect, strengths_of
from steering_core.tables.matched import Matching, compare, warnings_of
from steering_core.tables.pareto import Measured, of_prompts


def layer_effect_table(trials: pd.DataFrame, experiment: str, matching: Matching) -> pd.DataFrame:
    """Return the table ``layer_effect`` as ``columns.yaml`` describes it.

    Layers are compared where their directions have one effect, as methods are in the table
    ``matched``. The layer with the least KL there is picked.

    Args:
        trials: rows of :func:`steering_core.metrics.layer_trial.try_layer` of all layers.
        experiment: name of the experiment.
        matching: what is matched.

    Raises:
        DataError: if the direction has no effect at any of the layers, or the matched one at none.
    """
    method = str(trials.loc[trials["method"] != BASELINE, "method"].iloc[0])
    first = trials["layer"].min()
    # Unsteered texts are the same at every layer.
    kept = trials[(trials["method"] != BASELINE) | (trials["layer"] == first)]
    steered = kept["method"] != BASELINE
    kept = kept.assign(method=kept["method"].where(~steered, _names(kept["layer"])))
    texts = of_prompts(kept.drop(columns=["strength_name", "layer"]))
    compared = compare(
        Measured(_solutions(kept), pd.DataFrame(), texts),
        matching,
        draws=int(trials["draw"].nunique()),
    )
    group = compared.groups[0]
    if group.effect is None:
        raise DataError(
            f"effect_layers: {method} moves the texts towards the target at none of the layers "
            f"{sorted(trials['layer'].unique().tolist())} within selection_kl: try other layers, "
            "another effect_direction or larger strengths."
        )
    rows: list[dict[str, Any]] = []
    for curve in group.curves:
        rows.append(
            compared.shared_cells(group, experiment)
            | {
                "layer": int(curve.method.removeprefix("layer ")),
                "method": method,
                "n_texts": int(strengths_of(compared.about, curve)["n_texts"].max()),
                "n_points": len(curve.rows),
                **at_the_effect(compared.points, compared.about, curve),
                "warnings": warnings_cell(warnings_of(compared.about, curve)) or None,
            }
        )
    table = pd.DataFrame(rows).sort_values("layer", ignore_index=True)
    if table["kl"].isna().all():
        raise DataError(
            f"effect_layers: none of the layers {table['layer'].tolist()} reaches a change of "
            f"{group.effect:.3g}: try other layers or larger strengths."
        )
    table["picked"] = table.index == table["kl"].idxmin()
    table = table[column_names("layer_effect")]
    validate_table(table, "layer_effect")
    return table


def _names(layers: pd.Series) -> pd.Series:
    return layers.map("layer {}".format)


def _solutions(kept: pd.DataFrame) -> pd.DataFrame:
    """Return what the comparison reads of solutions: a row per strength and prompt."""
    key = ["method", "strength_index", "example_id"]
    rows = kept.drop_duplicates(key)[[*key, "strength_name", "strength", "residual_norm"]]
    empty = dict.fromkeys(["tau", "lam", "epsilon", "l0"], np.nan)
    return rows.assign(**empty, status="fixed", split="validation_prompt")
