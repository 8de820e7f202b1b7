"""Select the strength to quote for each method, on validation prompts that are not reported."""

import numpy as np
import pandas as pd
from jaxtyping import Float

from steering_core.statistics.bootstrap import mean_interval, share_interval
from steering_core.tables.columns import interval_cells

_ROUNDING = 1e-12  # of a mean of shares


def select_strengths(
    texts: pd.DataFrame,
    budget: float,
    *,
    draws: int = 1,
    seed: int = 0,
    n_resamples: int = 2000,
) -> pd.DataFrame:
    """Select one strength of each method on the validation prompts.

    Only strengths within the KL budget compete: beyond it texts fall apart, and methods would be
    compared at different costs. A strength that could not steer every validation prompt at every
    position does not compete either. Among the others the one-standard-error rule decides (Breiman
    et al. 1984, Classification and Regression Trees, 3.4.3). Of the strengths whose target rate is
    within one standard error of the method's best, it selects the one with the least KL; the first
    one wins ties. No probe is used, so the programs gain nothing from enforcing one.

    With several draws of a prompt, the standard error is that of the difference to the best over
    the same prompts, so that what makes a prompt easy at every strength does not count. One text a
    prompt is too coarse for that: most prompts have the same verdict at two strengths, and the
    error of the few that differ is too small. Then it is the error of the best share.

    Args:
        texts: a row per (method, strength, validation prompt): ``kl_sum``, ``n_tokens``,
            ``judged``, and, for methods solved at every position, ``unsolved_positions``.
        budget: largest mean KL to the unsteered model, nats per token.
        draws: number of texts of each prompt that a row of ``texts`` was joined from.
        seed: seed of the bootstrap.
        n_resamples: number of bootstrap samples.

    Returns:
        A row per (``method``, ``strength_index``): ``n_validation_texts`` (the number of steered
        prompts); ``validation_classifier_rate`` and ``validation_kl_mean`` (nats per token) over
        these prompts with their intervals, NaN without such prompts; and ``selected``.

    """
    rows = []
    boot = {"seed": seed, "n_resamples": n_resamples}
    for (method, index), group in texts.groupby(["method", "strength_index"], sort=True):
        made = group[group["n_tokens"] > 0]
        unsolved = group["unsolved_positions"].sum() if "unsolved_positions" in group else 0
        hits = made["judged"].dropna().to_numpy(dtype=float)
        judged = share_interval(hits, np.ones_like(hits), **boot)
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
    competing = competing.dropna(subset=["validation_classifier_rate"])  # no text is rated
    for method, strengths in competing.groupby("method"):
        rate = strengths["validation_classifier_rate"].to_numpy()
        error = standard_error(rate.max(), strengths["n"].iloc[0])
        if draws > 1:
            own = texts[texts["method"] == method]
            judged = own.pivot(index="example_id", columns="strength_index", values="judged")
            error = paired_errors(judged[strengths["strength_index"]].to_numpy(), rate.argmax())
        close = rate >= rate.max() - error - _ROUNDING
        table.loc[strengths["validation_kl_mean"][close].idxmin(), "selected"] = True
    return table.drop(columns=["n", "whole"])


def paired_errors(
    judged: Float[np.ndarray, "prompts strengths"], best: int
) -> Float[np.ndarray, " strengths"]:
    """Return the standard error of the mean difference between each strength and the best one.

    Args:
        judged: share of the draws of a prompt that the judge puts in the target class; NaN if it
            rates none of them.
        best: number of the strength to compare with; its own error is 0.
    """
    differences = judged - judged[:, [best]]
    known = ~np.isnan(differences)
    counts = np.maximum(known.sum(axis=0), 1)
    means = np.where(known, differences, 0.0).sum(axis=0) / counts
    squares = (np.where(known, differences - means, 0.0) ** 2).sum(axis=0)
    return np.sqrt(squares / np.maximum(counts - 1, 1) / counts)


def standard_error(rate: float, n: int) -> float:
    """Return the standard error of a share of ``n``; it is above 0 even for a share of 0 or 1.

    Two successes and two failures are added first (Agresti & Coull 1998, The American
    Statistician 52(2)).
    """
    adjusted = (rate * n + 2) / (n + 4)
    return float(np.sqrt(adjusted * (1 - adjusted) / (n + 4)))
