"""Aggregate all measurements into pareto.csv, one row per (method, strength)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from steering_core.config.methods import BASELINE, is_adaptive, is_program
from steering_core.methods.solutions import PARTS, SOLVED, TEXT_KEY, solved
from steering_core.statistics.bootstrap import mean_interval, perplexity_interval, share_interval
from steering_core.tables.caveats import warnings_cell
from steering_core.tables.columns import column_names, interval_cells, validate_table
from steering_core.tables.pareto_frontier import frontier_flags, frontier_probability
from steering_core.tables.selection import select_strengths

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
