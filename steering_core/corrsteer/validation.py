"""Judge every layer of a plan alone on the validation rows."""

from collections.abc import Callable, Sequence

import pandas as pd

from steering_core.corrsteer.answers import Intervention, layer_interventions
from steering_core.corrsteer.plan import Plan
from steering_core.corrsteer.strategy import UNSTEERED_LAYER
from steering_core.progress import progress


def validate_layers(
    plan: Plan, run: Callable[[Sequence[Intervention]], pd.DataFrame]
) -> pd.DataFrame:
    """Return ``layer, accuracy, n`` for the unsteered model (layer −1) and each layer alone.

    A row without an answer, since its logits were NaN or infinite, is no success.

    Args:
        plan: the vectors.
        run: answers the validation rows under some interventions.
    """
    rows = []
    for layer in progress([UNSTEERED_LAYER, *sorted(plan.vectors)], "layers alone"):
        chosen = [] if layer == UNSTEERED_LAYER else [layer]
        answers = run(layer_interventions(plan.vectors, plan.sites, chosen))
        rows.append((layer, float(answers["success"].eq(True).mean()), len(answers)))
    return pd.DataFrame(rows, columns=["layer", "accuracy", "n"])
