"""What was measured, prompt by prompt: reported and validation prompts, and the selected strengths.

The strength to quote for each method is selected on validation prompts, which are not reported.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from steering_core.methods.solutions import TEXT_KEY
from steering_core.statistics.bootstrap import mean_interval, share_interval
from steering_core.tables.columns import interval_cells

#: What is added over the draws of a prompt; everything else is averaged.
_SUMS = (
    "kl_sum",
    "base_nll_sum",
    "n_tokens",
    "steered_positions",
    "unsolved_positions",
    "added_positions",
    "empty",
)
_ROUNDING = 1e-12  # of a mean of shares


@dataclass(frozen=True)
class Measured:
    """The measurements of all stages, for all methods together.

    Attributes:
        solutions: a row per (method, strength, input): test rows and prompts.
        probe_effects: a row per (method, strength, test row).
        texts: a row per (method, strength, prompt): ``kl_sum``, ``base_nll_sum``, ``n_tokens``
            ``judged`` (1 if the judge puts the completion in the target class) and ``empty`` (1 if
            the completion has no word); NaN where the prompt had no solution. Must contain
            ``no_steering``.
        validation_texts: the same for validation prompts. If None, no strength is selected.
    """

    solutions: pd.DataFrame
    probe_effects: pd.DataFrame
    texts: pd.DataFrame
    validation_texts: pd.DataFrame | None = None


def gather(
    solutions: pd.DataFrame,
    probe_effects: pd.DataFrame,
    divergence: Sequence[pd.DataFrame],
    judged: pd.DataFrame,
) -> Measured:
    """Combine the tables of the stages, and separate reported from validation prompts.

    Args:
        solutions: rows of ``solutions/{family}.parquet`` of all families.
        probe_effects: rows of ``probe_effects.parquet``.
        divergence: tables ``divergence/{method}.parquet``, one per method.
        judged: rows of ``judged.parquet``.

    """
    texts = of_prompts(pd.concat(divergence).merge(judged, on=[*TEXT_KEY], validate="one_to_one"))
    split = solutions.drop_duplicates("example_id").set_index("example_id")["split"]
    split = texts["example_id"].map(split)
    validation = texts[split == "validation_prompt"]
    return Measured(
        solutions=solutions[solutions["split"].isin(["test", "prompt"])],
        probe_effects=probe_effects[probe_effects["split"] == "test"],
        texts=texts[split == "prompt"],
        validation_texts=None if validation.empty else validation,
    )


def of_prompts(texts: pd.DataFrame) -> pd.DataFrame:
    """Return a row per method, strength and prompt from the texts of all its draws.

    Prompts are the clusters of every interval, so the draws of a prompt are joined first: sums are
    added, shares and scores are averaged. A prompt counts as without a text if a draw has none.
    """
    if (texts["draw"] == 0).all():
        return texts.drop(columns="draw")
    key = ["method", "strength_index", "example_id"]
    grouped = texts.groupby(key, sort=False)
    sums = [name for name in _SUMS if name in texts]
    means = [name for name in texts if name not in (*key, "draw", *sums)]
    joined = pd.concat([grouped[sums].sum(min_count=1), grouped[means].mean()], axis=1)
    lost = grouped["n_tokens"].min() == 0
    joined.loc[lost, [name for name in joined if name != "n_tokens"]] = np.nan
    joined.loc[lost, "n_tokens"] = 0
    return joined.reset_index()


# ------------------------------------------------------------------- the selected strengths
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
