"""Aggregate everything measured into one row per (method, strength)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from steering_core.config.schema import Settings
from steering_core.methods.modes import is_adaptive, is_program
from steering_core.methods.reference import NoSteering
from steering_core.methods.solutions import SOLVED, solved
from steering_core.metrics.bootstrap import mean_interval, perplexity_interval
from steering_core.tables.columns import PARETO_NAMES, validate_pareto
from steering_core.tables.frontier import frontier_flags
from steering_core.tables.selection import select_strengths


@dataclass(frozen=True)
class Subject:
    """What the table is about, and what a reader must be warned of in every row."""

    experiment: str
    model: str
    task: str
    layer: int
    warnings: list[str]


@dataclass(frozen=True)
class Measured:
    """What the stages measured, all methods together.

    Attributes:
        solutions: a row per (method, strength, input): test rows and prompts.
        probe_effects: a row per (method, strength, test row).
        texts: a row per (method, strength, prompt): ``kl_sum``, ``base_nll_sum``, ``n_tokens``
            and ``judged`` (1 if the judge puts the completion in the target class); NaN where the
            prompt had no solution. Must contain ``no_steering``.
        validation_texts: the same of the validation prompts, or None: then no strength is selected.
    """

    solutions: pd.DataFrame
    probe_effects: pd.DataFrame
    texts: pd.DataFrame
    validation_texts: pd.DataFrame | None = None


def pareto_table(subject: Subject, measured: Measured, settings: Settings) -> pd.DataFrame:
    """Return the table that :mod:`steering_core.tables.columns` describes.

    Means are over inputs with a solution; the flip rates count an input without one as not
    flipped. A row that could not steer every input and position competes for no frontier.
    """
    base = measured.texts[measured.texts["method"] == NoSteering.name]
    rows = [
        _row(subject, measured, base, method, index, settings)
        for method in settings.methods
        for index in _strengths(measured.solutions, method)
    ]
    table = _with_selection(pd.DataFrame(rows), measured.validation_texts, settings.selection_kl)
    whole = table["feasible_fraction"].isna() | (table["feasible_fraction"] == 1)
    whole &= table["unsolved_positions"] == 0
    table["on_frontier"] = frontier_flags(table[whole]).reindex(table.index)
    table = table[list(PARETO_NAMES)]
    validate_pareto(table)
    return table


def probe_warnings(reports: dict[str, dict[str, Any]]) -> list[str]:
    """Return a warning for each probe that is no better than chance on validation rows."""
    return [
        f"the {part} probe is no better than chance on validation rows "
        f"(accuracy {report['accuracy']:.2f}, chance {report['chance']:.2f}, n {report['n']})"
        for part, report in reports.items()
        if report["at_chance"]
    ]


def _with_selection(table: pd.DataFrame, texts: pd.DataFrame | None, budget: float) -> pd.DataFrame:
    """Add what the validation prompts say; empty cells without any."""
    if texts is None:
        nothing = {"validation_classifier_rate": np.nan, "validation_kl_mean": np.nan}
        return table.assign(**nothing, selected=pd.array([pd.NA] * len(table), dtype="boolean"))
    chosen = select_strengths(texts, budget).astype({"selected": "boolean"})
    return table.merge(chosen, on=["method", "strength_index"], how="left", validate="one_to_one")


def _strengths(solutions: pd.DataFrame, method: str) -> list[int]:
    return sorted(solutions.loc[solutions["method"] == method, "strength_index"].unique())


def _row(
    subject: Subject,
    measured: Measured,
    base: pd.DataFrame,
    method: str,
    index: int,
    settings: Settings,
) -> dict[str, Any]:
    solutions, effects, texts = (
        frame[(frame["method"] == method) & (frame["strength_index"] == index)]
        for frame in (measured.solutions, measured.probe_effects, measured.texts)
    )
    boot = {"n_resamples": settings.bootstrap_resamples, "seed": settings.seed}
    point = solutions.iloc[0]
    row: dict[str, Any] = {
        "experiment": subject.experiment,
        "model": subject.model,
        "task": subject.task,
        "layer": subject.layer,
        **point[
            ["method", "strength_index", "strength_name", "strength", "tau", "lam", "epsilon"]
        ].to_dict(),
        "n_examples": len(effects),
        "n_prompts": len(texts),
        "feasible_fraction": np.nan,
    }
    tested = solutions[solutions["example_id"].isin(effects["example_id"])]
    row |= _size(tested[solved(tested)], boot)
    row |= _probe_columns(effects, boot)
    row |= _text_columns(texts[texts["n_tokens"] > 0], base, boot)
    warnings = list(subject.warnings)
    if is_program(method):
        row["feasible_fraction"] = float(solved(solutions).mean())
        for status, count in solutions["status"].value_counts().items():
            if status not in SOLVED:
                warnings.append(f"{count} of {len(solutions)} inputs {status}")
    row["unsolved_positions"] = 0
    if is_adaptive(method):
        steered, row["unsolved_positions"] = (
            int(texts[f"{which}_positions"].sum()) for which in ("steered", "unsolved")
        )
        if row["unsolved_positions"]:
            warnings.append(
                f"{row['unsolved_positions']} of {steered} steered positions had no solution and "
                "were left alone"
            )
    return row | {"warnings": "; ".join(warnings)}


def _size(rows: pd.DataFrame, boot: dict[str, int]) -> dict[str, float]:
    """How much is touched, over the test rows that have a solution."""
    sizes: dict[str, float] = {}
    for name in ("residual_norm", "l0", "l1"):
        interval = _interval(name, rows[name].dropna(), boot)  # NaN: not through features
        interval[f"{name}_mean"] = interval.pop(name)
        sizes |= interval
    return sizes


def _probe_columns(effects: pd.DataFrame, boot: dict[str, int]) -> dict[str, float]:
    row: dict[str, float] = {}
    for probe, flip in (("probe", "flip"), ("eval_probe", "eval_flip")):
        row[f"{probe}_score_base"] = _mean(effects[f"{probe}_base"])
        score = _interval(f"{probe}_score", effects[f"{probe}_steered"].dropna(), boot)
        score[f"{probe}_score_steered"] = score.pop(f"{probe}_score")
        row |= score
        outside = effects[effects[f"{probe}_base"] <= 0]
        flipped = (outside[f"{probe}_steered"] > 0).astype(float)  # NaN, no solution: not flipped
        interval = _interval(flip, flipped, boot)
        interval[f"{flip}_rate"] = interval.pop(flip)
        row |= interval
    return row


def _text_columns(
    made: pd.DataFrame, base: pd.DataFrame, boot: dict[str, int]
) -> dict[str, float | None]:
    row: dict[str, float | None] = _interval("kl", made["kl_sum"] / made["n_tokens"], boot)
    row["kl_mean"] = row.pop("kl")
    for name, texts in (("base", base), ("steered", made)):
        perplexity = perplexity_interval(
            texts["base_nll_sum"].to_numpy(), texts["n_tokens"].to_numpy(), **boot
        )
        row[f"perplexity_{name}"] = perplexity.mean
    row["perplexity_ci_low"], row["perplexity_ci_high"] = perplexity.low, perplexity.high
    judged = _interval("classifier", made["judged"], boot)
    row["classifier_rate_base"] = _mean(base["judged"])
    row["classifier_rate_steered"] = judged.pop("classifier")
    return row | judged


def _interval(name: str, values: pd.Series, boot: dict[str, int]) -> dict[str, Any]:
    interval = mean_interval(values.to_numpy(dtype=float), **boot)
    return {name: interval.mean, f"{name}_ci_low": interval.low, f"{name}_ci_high": interval.high}


def _mean(values: pd.Series) -> float:
    """Mean over the inputs that have a value; NaN, an empty cell, without any."""
    return float(values.mean())
