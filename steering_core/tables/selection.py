"""The strength of each method that is quoted, selected on texts that nothing is reported on."""

import numpy as np
import pandas as pd

from steering_core.statistics.bootstrap import mean_interval
from steering_core.tables.columns import interval_cells


def select_strengths(
    texts: pd.DataFrame, budget: float, *, seed: int = 0, n_resamples: int = 2000
) -> pd.DataFrame:
    """Select one strength of each method on the validation prompts.

    Strengths compete whose KL keeps to the budget: beyond it a judge reads debris, and methods
    would be compared at different costs. Of those, the one-standard-error rule (Breiman et al.
    1984, Classification and Regression Trees, 3.4.3): among the strengths whose target rate is
    within one standard error of the method's best, the one with the least KL, then the first. A
    strength that could not steer every validation prompt, at every position, does not compete. No
    probe takes part, so the programs gain nothing from enforcing one.

    Args:
        texts: a row per (method, strength, validation prompt): ``kl_sum``, ``n_tokens``,
            ``judged``, and, for methods solved at every position, ``unsolved_positions``.
        budget: largest mean KL to the unsteered model, nats per token.
        seed: of the bootstrap.
        n_resamples: number of bootstrap samples.

    Returns:
        A row per (``method``, ``strength_index``): ``n_validation_texts``, the prompts that were
        steered; over these ``validation_classifier_rate`` and ``validation_kl_mean`` (nats per
        token) with their intervals, NaN where there are none; and ``selected``.

    """
    rows = []
    boot = {"seed": seed, "n_resamples": n_resamples}
    for (method, index), group in texts.groupby(["method", "strength_index"], sort=True):
        made = group[group["n_tokens"] > 0]
        unsolved = group["unsolved_positions"].sum() if "unsolved_positions" in group else 0
        judged = mean_interval(made["judged"].to_numpy(dtype=float), **boot)
        divergence = (made["kl_sum"] / made["n_tokens"]).to_numpy(dtype=float)
        kl = mean_interval(divergence, **boot)
        rows.append(
            {
                "method": method,
                "strength_index": index,
                "n_validation_texts": len(made),
                **interval_cells("validation_classifier_rate", "validation_classifier_ci", judged),
                **interval_cells("validation_kl_mean", "validation_kl_ci", kl),
                "n": len(group),
                "whole": len(made) == len(group) and unsolved == 0,
                "selected": False,
            }
        )
    table = pd.DataFrame(rows)
    competing = table[table["whole"] & (table["validation_kl_mean"] <= budget)]
    for _, strengths in competing.groupby("method"):
        rate = strengths["validation_classifier_rate"].to_numpy()
        close = rate >= rate.max() - standard_error(rate.max(), strengths["n"].iloc[0])
        table.loc[strengths["validation_kl_mean"][close].idxmin(), "selected"] = True
    return table.drop(columns=["n", "whole"])


def standard_error(rate: float, n: int) -> float:
    """Return the standard error of a share of ``n``, which is above 0 also for a share of 1.

    Two successes and two failures are added first (Agresti & Coull 1998, The American
    Statistician 52(2)).
    """
    adjusted = (rate * n + 2) / (n + 4)
    return float(np.sqrt(adjusted * (1 - adjusted) / (n + 4)))
