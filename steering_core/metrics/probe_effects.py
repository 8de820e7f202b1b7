"""What an intervention does to two probes: the one it was solved for, and one it never saw."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from steering_core.methods.interventions import Interventions
from steering_core.methods.solutions import solved
from steering_core.probes.linear_probe import LinearProbe


def probe_effects(
    interventions: Interventions,
    example_ids: Sequence[str],
    residuals: Float[np.ndarray, "n d_model"],
    probe: LinearProbe,
    evaluation_probe: LinearProbe,
) -> pd.DataFrame:
    """Return logits before and after, one row per (strength, example).

    Both probes must be oriented to the target class. Logits after are NaN for an input without a
    solution. The fitted probe's score counts what the programs were told to satisfy; the
    evaluation probe's, fitted on rows nobody else touches, is the one to judge by.
    """
    residuals = residuals.astype(np.float64)
    weights = np.stack([probe.weight_vector, evaluation_probe.weight_vector], axis=1)
    before = residuals @ weights + np.array([probe.bias, evaluation_probe.bias])
    frames = []
    for index in interventions.points():
        rows = interventions.at(index, example_ids)
        after = before + interventions.vectors(rows) @ weights
        after[~solved(rows)] = np.nan
        frames.append(
            pd.DataFrame(
                {
                    "strength_index": index,
                    "example_id": list(example_ids),
                    "status": rows["status"],
                    "probe_base": before[:, 0],
                    "probe_steered": after[:, 0],
                    "eval_probe_base": before[:, 1],
                    "eval_probe_steered": after[:, 1],
                }
            )
        )
    return pd.concat(frames, ignore_index=True)
