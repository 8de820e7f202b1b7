"""Cells of a Pareto row that are over prompts: what was added, and what became of the text."""

import pandas as pd

from steering_core.methods.solutions import solved
from steering_core.statistics.bootstrap import mean_interval, perplexity_interval
from steering_core.tables.columns import interval_cells
from steering_core.tables.row_cells import size_cells


def text_cells(
    solutions: pd.DataFrame, texts: pd.DataFrame, base: pd.DataFrame, boot: dict[str, int]
) -> dict[str, float]:
    """Return counts, sizes, KL, perplexities and the judge's rates of one method at one strength.

    Args:
        solutions: a row per prompt, as ``solutions/*.parquet`` has them.
        texts: a row per prompt, as :class:`steering_core.tables.pareto.Measured` has them.
        base: the same of the unsteered texts.
        boot: ``seed`` and ``n_resamples`` of the intervals.

    """
    made = texts[texts["n_tokens"] > 0]
    # Before and after are over the same prompts.
    base = base[base["example_id"].isin(made["example_id"])]
    cells: dict[str, float] = {"n_prompts": len(texts), "n_texts": len(made)}
    cells |= {"n_empty_base": int(base["empty"].sum()), "n_empty": int(made["empty"].sum())}
    sizes = ("residual_norm", "l0")
    cells |= size_cells(solutions[solved(solutions)], "prompt_{}", boot, sizes)
    divergence = (made["kl_sum"] / made["n_tokens"]).to_numpy(dtype=float)
    cells |= interval_cells("kl_mean", "kl_ci", mean_interval(divergence, **boot))
    before, after = (
        perplexity_interval(part["base_nll_sum"].to_numpy(), part["n_tokens"].to_numpy(), **boot)
        for part in (base, made)
    )
    cells |= interval_cells("perplexity_base", "perplexity_base_ci", before)
    cells |= interval_cells("perplexity_steered", "perplexity_ci", after)
    unsteered = mean_interval(base["judged"].to_numpy(dtype=float), **boot)
    cells |= interval_cells("classifier_rate_base", "classifier_base_ci", unsteered)
    judged = mean_interval(made["judged"].to_numpy(dtype=float), **boot)
    return cells | interval_cells("classifier_rate_steered", "classifier_ci", judged)
