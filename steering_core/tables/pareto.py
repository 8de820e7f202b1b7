"""All measurements in pareto.csv, a row per (method, strength), and which rows are on its frontier.

On the frontier are the rows that no other row beats in effect and cost, with bootstrap support.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from steering_core.config.methods import BASELINE, is_adaptive, is_program
from steering_core.methods.solutions import PARTS, SOLVED, solved
from steering_core.statistics.bootstrap import (
    mean_interval,
    perplexity_interval,
    resampled_sums,
    share_interval,
)
from steering_core.tables.caveats import warnings_cell
from steering_core.tables.columns import column_names, interval_cells, validate_table
from steering_core.tables.measured import Measured, select_strengths

if TYPE_CHECKING:
    from steering_core.config.schema import Settings

_POINT = ["method", "strength_index", "strength_name", "strength", *PARTS]


@dataclass(frozen=True)
class Subject:
    """The experiment that the table describes, and the warnings for every row.

    ``config_sha256`` and ``code_sha256`` are the shortened digests of ``provenance.json``.
    """

    experiment: str
    model: str
    task: str
    layer: int
    warnings: list[str]
    config_sha256: str
    code_sha256: str


def pareto_table(subject: Subject, measured: Measured, settings: "Settings") -> pd.DataFrame:
    """Return the table ``pareto`` as ``columns.yaml`` describes it.

    Means are over inputs with a solution, both before and after steering. Flip rates count an input
    without a solution as not flipped. A row cannot be on the frontier if it could not steer every
    prompt and position, or if its logits were not finite for a prompt.
    """
    base = measured.texts[measured.texts["method"] == BASELINE]
    boot = {"n_resamples": settings.bootstrap_resamples, "seed": settings.seed}
    rows = [
        _row(subject, measured, base, method, index, boot, draws=settings.draws)
        for method in settings.methods
        for index in _strengths(measured.solutions, method)
    ]
    table = _with_selection(
        pd.DataFrame(rows),
        measured.validation_texts,
        settings.selection_kl,
        boot,
        draws=settings.draws,
    )
    # Both axes of the frontier are over prompts, so test rows do not decide which rows compete.
    whole = table["feasible_fraction_prompts"].isna() | (table["feasible_fraction_prompts"] == 1)
    whole &= table["unsolved_positions"].fillna(0) == 0
    whole &= table["n_texts"] == table["n_prompts"]
    table["on_frontier"] = frontier_flags(table[whole]).reindex(table.index)
    key = ["method", "strength_index"]
    competing = table.loc[table["on_frontier"].notna(), key]
    sure = frontier_probability(measured.texts.merge(competing, on=key), **boot)
    table = table.merge(sure, on=key, how="left", validate="one_to_one")
    table = table[column_names("pareto")]
    table = table.astype({name: "Int64" for name in _OUTSIDE if table[name].isna().any()})
    validate_table(table, "pareto")
    return table


def _with_selection(
    table: pd.DataFrame,
    texts: pd.DataFrame | None,
    budget: float,
    boot: dict[str, int],
    *,
    draws: int,
) -> pd.DataFrame:
    """Add the columns of the validation prompts; without such prompts their cells are empty."""
    if texts is None:
        chosen = [name for name in column_names("pareto") if name.startswith("validation_")]
        table = table.assign(**dict.fromkeys(chosen, np.nan), n_validation_texts=np.nan)
        return table.assign(selected=pd.array([pd.NA] * len(table), dtype="boolean"))
    chosen = select_strengths(texts, budget, draws=draws, **boot).astype({"selected": "boolean"})
    table = table.merge(chosen, on=["method", "strength_index"], how="left", validate="one_to_one")
    rate = table["validation_classifier_rate"]
    unsteered = rate[table["method"] == BASELINE].mean()  # of one row
    useless = table["selected"].fillna(False) & (rate <= unsteered)
    for place in table.index[useless & (table["method"] != BASELINE)]:
        warning = (
            "the selected strength did not help on validation: its target rate there is "
            f"{rate[place]:.3g}, without steering {unsteered:.3g}"
        )
        table.loc[place, "warnings"] = "; ".join(filter(None, [table["warnings"][place], warning]))
    return table


def _strengths(solutions: pd.DataFrame, method: str) -> list[int]:
    return sorted(solutions.loc[solutions["method"] == method, "strength_index"].unique())


def _row(
    subject: Subject,
    measured: Measured,
    base: pd.DataFrame,
    method: str,
    index: int,
    boot: dict[str, int],
    *,
    draws: int,
) -> dict[str, Any]:
    solutions, effects, texts = (
        frame[(frame["method"] == method) & (frame["strength_index"] == index)]
        for frame in (measured.solutions, measured.probe_effects, measured.texts)
    )
    examples, prompts = (
        solutions[solutions["example_id"].isin(frame["example_id"])] for frame in (effects, texts)
    )
    row: dict[str, Any] = {
        "experiment": subject.experiment,
        "model": subject.model,
        "task": subject.task,
        "layer": subject.layer,
        "seed": boot["seed"],
        **solutions.iloc[0][_POINT].to_dict(),
        **row_cells(examples, effects, boot),
        **text_cells(prompts, texts, base, boot),
        **_where_cells(examples, effects, prompts, texts, boot),
        "unsolved_positions": np.nan,
        "config_sha256": subject.config_sha256,
        "code_sha256": subject.code_sha256,
    }
    # A declared program is not registered; its rows say that it was solved.
    program = is_program(method) or bool((solutions["status"] != "fixed").any())
    populations = {"": solutions, "_examples": examples, "_prompts": prompts}
    for name, inputs in populations.items():
        had = solved(inputs).astype(float) if program else np.zeros(0)
        interval = share_interval(had, np.ones_like(had), **boot)
        row |= interval_cells(f"feasible_fraction{name}", f"feasible{name}_ci", interval)
    warnings = list(subject.warnings)
    lost = int(solved(prompts).sum()) - row["n_texts"]
    if lost:
        warnings.append(
            f"{lost} of {row['n_prompts']} prompts have no text or no KL: logits NaN or infinite"
        )
    if row["n_empty"]:
        made = row["n_texts"] * draws  # `n_texts` counts prompts
        warnings.append(f"texts without a word, which are in no class: {row['n_empty']} of {made}")
    if program:
        for status, count in solutions["status"].value_counts().items():
            if status not in SOLVED:
                warnings.append(f"{count} of {len(solutions)} inputs {status}")
    counted = "steered_positions" in texts and bool(texts["steered_positions"].notna().any())
    if is_adaptive(method) or counted:
        steered, row["unsolved_positions"] = (
            int(texts[f"{which}_positions"].sum()) for which in ("steered", "unsolved")
        )
        if row["unsolved_positions"]:
            warnings.append(
                f"{row['unsolved_positions']} of {steered} steered positions had no solution and "
                "were left alone"
            )
    return row | {"warnings": warnings_cell(warnings)}


def _where_cells(
    examples: pd.DataFrame,
    effects: pd.DataFrame,
    prompts: pd.DataFrame,
    texts: pd.DataFrame,
    boot: dict[str, int],
) -> dict[str, float]:
    """Return where something is added: at which positions of texts, and where it is needless.

    A program or a gate decides at every position of its texts, and these were counted. Everything
    else adds a prompt's vector at all of its positions.

    Args:
        examples: solution rows of the test rows.
        effects: their logits.
        prompts: solution rows of the prompts.
        texts: of the prompts.
        boot: ``seed`` and ``n_resamples`` of the intervals.
    """
    made = texts[texts["n_tokens"] > 0]
    if prompts["residual_norm"].isna().all():  # nothing can be added to the residual stream
        made = made.iloc[:0]
    if "added_positions" in made and made["added_positions"].notna().any():
        added, steerable = made["added_positions"], made["steered_positions"]
    else:
        moved = prompts.set_index("example_id")["residual_norm"].fillna(0.0) > 0
        steerable = made["n_tokens"]
        added = steerable * made["example_id"].map(moved).astype(float)
    share = share_interval(added.to_numpy(dtype=float), steerable.to_numpy(dtype=float), **boot)
    inside = effects.loc[effects["eval_probe_base"] > 0, "example_id"]
    rows = examples[examples["example_id"].isin(inside) & examples["residual_norm"].notna()]
    needless = (rows["residual_norm"] > 0).to_numpy(dtype=float)
    return interval_cells("steered_share", "steered_share_ci", share) | interval_cells(
        "needless_rate", "needless_ci", share_interval(needless, np.ones_like(needless), **boot)
    )


#: Columns of the solutions, with the stems of the cells for their means.
_SIZES = ("residual_norm", "l0", "l1")


#: Counts of test rows that a probe puts outside the target class.
_OUTSIDE = ("n_outside", "n_outside_eval", "n_outside_eval_solved")


def row_cells(
    solutions: pd.DataFrame, effects: pd.DataFrame, boot: dict[str, int]
) -> dict[str, float]:
    """Return counts, sizes, probe scores and flip rates of one method at one strength.

    Args:
        solutions: rows of ``solutions/*.parquet``, one per test row.
        effects: rows of ``probe_effects.parquet``, one per test row.
        boot: ``seed`` and ``n_resamples`` of the intervals.

    """
    with_solution = solutions[solved(solutions)]
    outside = effects.loc[effects["eval_probe_base"] <= 0, "example_id"]
    outside_solved = with_solution[with_solution["example_id"].isin(outside)]
    counts: dict[str, float] = {"n_examples": len(effects), "n_solved": len(with_solution)}
    if effects["probe_base"].isna().all():  # the probes' site is not steered
        counts |= dict.fromkeys(_OUTSIDE, np.nan)
    else:
        n_outside = int((effects["probe_base"] <= 0).sum())
        counts |= zip(_OUTSIDE, (n_outside, len(outside), len(outside_solved)), strict=True)
    return (
        counts
        | size_cells(with_solution, "{}", boot)
        | size_cells(outside_solved, "{}_outside_eval", boot)
        | _probe_cells(effects, boot)
    )


def size_cells(
    rows: pd.DataFrame, name: str, boot: dict[str, int], sizes: tuple[str, ...] = _SIZES
) -> dict[str, float]:
    """Return the mean sizes of the solutions in ``rows``, which must all have a solution.

    Args:
        rows: rows of the solutions.
        name: pattern of the cells' names, with {} for the size.
        boot: ``seed`` and ``n_resamples`` of the intervals.
        sizes: sizes to average.

    """
    cells: dict[str, float] = {}
    for size in sizes:
        stem = name.format(size)
        values = rows[size].dropna().to_numpy(dtype=float)  # NaN if the method uses no features
        cells |= interval_cells(f"{stem}_mean", f"{stem}_ci", mean_interval(values, **boot))
    return cells


def _probe_cells(effects: pd.DataFrame, boot: dict[str, int]) -> dict[str, float]:
    cells: dict[str, float] = {}
    for probe, flip in (("probe", "flip"), ("eval_probe", "eval_flip")):
        # Use the same rows before and after: rows with a solution start closer to the margin.
        both = effects.dropna(subset=[f"{probe}_steered"])
        for when, stem in (("base", "score_base_ci"), ("steered", "score_ci")):
            scores = mean_interval(both[f"{probe}_{when}"].to_numpy(dtype=float), **boot)
            cells |= interval_cells(f"{probe}_score_{when}", f"{probe}_{stem}", scores)
        outside = effects[effects[f"{probe}_base"] <= 0]
        # NaN (no solution) counts as not flipped
        flipped = (outside[f"{probe}_steered"] > 0).to_numpy(dtype=float)
        rate = share_interval(flipped, np.ones_like(flipped), **boot)
        cells |= interval_cells(f"{flip}_rate", f"{flip}_ci", rate)
    return cells


def text_cells(
    solutions: pd.DataFrame, texts: pd.DataFrame, base: pd.DataFrame, boot: dict[str, int]
) -> dict[str, float]:
    """Return counts, sizes, KL, perplexities and the judge's rates of one method at one strength.

    Args:
        solutions: rows of ``solutions/*.parquet``, one per prompt.
        texts: rows of :class:`Measured`, one per prompt.
        base: the same rows of the unsteered texts.
        boot: ``seed`` and ``n_resamples`` of the intervals.

    """
    made = texts[texts["n_tokens"] > 0]
    # Use the same prompts before and after.
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
    for part, name, stem in (
        (base, "classifier_rate_base", "classifier_base_ci"),
        (made, "classifier_rate_steered", "classifier_ci"),
    ):
        # A text that the judge refuses to rate has no verdict.
        judged = part["judged"].dropna().to_numpy(dtype=float)
        rate = share_interval(judged, np.ones_like(judged), **boot)
        cells |= interval_cells(name, stem, rate)
    return cells


# --------------------------------------------------------------------------- the frontier
def non_dominated(
    cost: Float[np.ndarray, " n"], effect: Float[np.ndarray, " n"]
) -> Bool[np.ndarray, " n"]:
    """Mark the points that no other point dominates.

    Point ``j`` dominates ``i`` if ``cost[j] <= cost[i]`` and ``effect[j] >= effect[i]``, one of
    them strictly. Equal points do not dominate each other, so both are kept. A point with a NaN is
    not kept and dominates no other. Takes O(n log n) time.

    Args:
        cost: values that should be low, in any unit.
        effect: values that should be high, in any unit.

    Raises:
        ValueError: if the arrays are not one-dimensional or differ in length.

    """
    cost, effect = np.asarray(cost, dtype=float), np.asarray(effect, dtype=float)
    if cost.ndim != 1 or cost.shape != effect.shape:
        raise ValueError(
            f"cost {cost.shape} and effect {effect.shape} must be vectors of one length."
        )
    kept = np.zeros(cost.shape, dtype=bool)
    known = np.flatnonzero(~(np.isnan(cost) | np.isnan(effect)))
    if known.size == 0:
        return kept
    order = known[np.lexsort((-effect[known], cost[known]))]
    ordered_cost, ordered_effect = cost[order], effect[order]
    # Among points of equal cost, the first one in this order has the best effect.
    starts = np.searchsorted(ordered_cost, ordered_cost, side="left")
    best_so_far = np.maximum.accumulate(ordered_effect)
    # The first points have no cheaper point. Do not use -inf for its effect: an effect may be -inf.
    beats_cheaper = (starts == 0) | (ordered_effect > best_so_far[starts - 1])
    kept[order] = beats_cheaper & (ordered_effect == ordered_effect[starts])
    return kept


def frontier_flags(df: pd.DataFrame) -> pd.Series:
    """Compute the ``on_frontier`` column of a pareto table: nullable booleans.

    A row is on the frontier if no other row of its experiment has a ``kl_mean`` at most as high and
    a ``classifier_rate_steered`` at least as high, with one of them strictly better. The cell is
    empty if the row lacks one of these values.
    """
    flags = pd.Series(pd.NA, index=df.index, dtype="boolean", name="on_frontier")
    for _, rows in df.groupby("experiment", sort=False):
        cost = rows["kl_mean"].to_numpy(dtype=float)
        effect = rows["classifier_rate_steered"].to_numpy(dtype=float)
        defined = ~(np.isnan(cost) | np.isnan(effect))
        flags.loc[rows.index[defined]] = non_dominated(cost, effect)[defined]
    return flags


#: Decimal digits that are compared. Sums that differ only in their order are then ties.
_DIGITS = 12
#: Comparisons in memory at once. Limits the memory and does not change the result.
_AT_ONCE = 20_000_000


def frontier_probability(
    texts: pd.DataFrame, *, seed: int = 0, n_resamples: int = 2000
) -> pd.DataFrame:
    """Return the share of resamples of the prompts in which each row is on the frontier.

    Every resample draws as many prompts as there are, with replacement and the same for all rows,
    and computes the frontier of mean KL and target rate again. A row without a text in a resample
    is not on its frontier.

    Args:
        texts: a row per (``method``, ``strength_index``, ``example_id``): ``kl_sum``,
            ``n_tokens``, ``judged``. Only rows that compete may be included.
        seed: seed of the resampling.
        n_resamples: number of bootstrap samples.

    Returns:
        ``method``, ``strength_index``, ``frontier_probability``: one row per competing row.

    """
    key = ["method", "strength_index"]
    made = texts[texts["n_tokens"] > 0]
    made = made.assign(kl=made["kl_sum"] / made["n_tokens"])
    kl, judged = (made.pivot(index=key, columns="example_id", values=v) for v in ("kl", "judged"))
    # A text that the judge refuses to rate counts for the cost alone.
    there, rated = (frame.notna().to_numpy() for frame in (kl, judged))
    kl_of, judged_of = (frame.fillna(0.0).to_numpy(dtype=float) for frame in (kl, judged))
    on = np.zeros(len(kl))
    if there.size:
        samples = [*there.astype(float), *rated.astype(float), *kl_of, *judged_of]
        sums = resampled_sums(samples, seed=seed, n_resamples=n_resamples)
        texts_in, rated_in, cost, effect = np.split(sums.T, 4, axis=1)
        with np.errstate(invalid="ignore"):
            cost, effect = np.round(cost / texts_in, _DIGITS), np.round(effect / rated_in, _DIGITS)
        for part in np.array_split(np.arange(n_resamples), 1 + cost.size * len(kl) // _AT_ONCE):
            on += _on_frontier(cost[part], effect[part]).sum(axis=0)
    return kl.index.to_frame(index=False).assign(frontier_probability=on / n_resamples)


def _on_frontier(
    cost: Float[np.ndarray, "resamples n"], effect: Float[np.ndarray, "resamples n"]
) -> Bool[np.ndarray, "resamples n"]:
    """Do the same as :func:`non_dominated`, for every resample at once."""
    c, e = cost[:, :, None], effect[:, :, None]  # the point that may dominate
    weakly = (c <= cost[:, None]) & (e >= effect[:, None])
    strictly = (c < cost[:, None]) | (e > effect[:, None])
    return ~(weakly & strictly).any(axis=1) & ~np.isnan(cost) & ~np.isnan(effect)
