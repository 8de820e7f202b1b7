"""Curves of effect against cost: a method's strengths, averaged over prompts and joined.

:func:`measure_points` averages the texts of every strength, in all resamples of the prompts at
once. :func:`fit_curves` joins the strengths to curves and finds where each reaches an effect, and
:func:`at_the_effect` gives the costs there. How a curve runs between its points is in
:mod:`steering_core.statistics.matched_effect`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from steering_core.config.methods import BASELINE, RANDOM
from steering_core.methods.solutions import solved
from steering_core.statistics.bootstrap import Interval, resampled_sums, same_interval
from steering_core.statistics.matched_effect import (
    EffectCurve,
    Place,
    open_interval,
    paired_ratio,
)
from steering_core.tables.columns import column_names, validate_table

#: The columns that name a strength of a method.
STRENGTH_KEY = ["method", "strength_index"]
#: A judge without grades scores 0, 0.5 or 1: in one class, in neither, in the other.
_STEP = 0.5
_ROUNDING = 1e-6
#: What a curve costs besides KL.
_COSTS = ("perplexity", "residual_norm", "l0")

Samples = Float[np.ndarray, "points samples"]
Measure = tuple[str, str]


@dataclass(frozen=True)
class Points:
    """The strengths of all methods, averaged over prompts.

    Sample 0 is the estimate; the others are resamples of the prompts, the same for all points.

    Attributes:
        about: a row per point: ``method``, ``strength_index``, ``n_texts`` and ``whole``.
        n_prompts: number of prompts.
        kl: nats per token; NaN for a point without texts.
        log_perplexity: of the texts under the unsteered model.
        base_log_perplexity: of the unsteered texts.
        residual_norm: NaN if nothing is added to the residual stream.
        l0: NaN if the vector is not made of features.
        effects: by judge and measure, the change against the unsteered texts.
        unsteered: by judge and measure, the mean of the unsteered texts.
    """

    about: pd.DataFrame
    n_prompts: int
    kl: Samples
    log_perplexity: Samples
    base_log_perplexity: Float[np.ndarray, " samples"]
    residual_norm: Samples
    l0: Samples
    effects: dict[Measure, Samples]
    unsteered: dict[Measure, float]


def text_measures(
    texts: pd.DataFrame, judge: str, target_class: int, draws: int = 1
) -> dict[Measure, pd.Series]:
    """Return what the judges say of each text, larger for the target class.

    Args:
        texts: ``judged`` and ``score`` of the first judge; ``judged_NAME`` and ``score_NAME`` of
            each further one.
        judge: name of the first judge.
        target_class: the scores are for class 1, so they are turned round for class 0.
        draws: number of texts that each row is the mean of.

    Returns:
        A column by (judge, measure). A score counts as a measure if it has other values than means
        of 0, 0.5 and 1.
    """
    further = [name.removeprefix("judged_") for name in texts.columns if name.startswith("judged_")]
    found: dict[Measure, pd.Series] = {}
    for name, suffix in [(judge, ""), *((name, f"_{name}") for name in further)]:
        found[name, "rate"] = texts[f"judged{suffix}"]
        score = texts.get(f"score{suffix}")
        if score is not None and _is_graded(score, draws):
            found[name, "score"] = score if target_class == 1 else 1 - score
    return found


def _is_graded(score: pd.Series, draws: int) -> bool:
    values = score.dropna().to_numpy(dtype=float)
    graded = np.ones(len(values), dtype=bool)
    for scored in range(1, draws + 1):  # a text without a word has no score
        steps = values * (scored / _STEP)
        graded &= np.abs(steps - np.round(steps)) > _ROUNDING
    return bool(graded.any())


def measure_points(
    texts: pd.DataFrame,
    solutions: pd.DataFrame | None,
    measures: Mapping[Measure, pd.Series],
    *,
    seed: int = 0,
    n_resamples: int = 0,
) -> Points:
    """Average the texts of each strength over prompts. All draws of a prompt stay together.

    Args:
        texts: rows of :class:`steering_core.tables.measured.Measured`; several of a prompt differ
            in ``draw``. Prompts without an unsteered text are left out.
        solutions: rows of the prompts' solutions; None to leave norms and L0 out.
        measures: of :func:`text_measures`, for the same rows.
        seed: seed of the resampling.
        n_resamples: number of resamples; 0 for the estimate alone.
    """
    names = {measure: f"measure {number}" for number, measure in enumerate(measures)}
    texts = texts.assign(**{names[measure]: values for measure, values in measures.items()})
    made = texts[texts["n_tokens"] > 0]
    made = made.assign(kl=made["kl_sum"] / made["n_tokens"])
    base = made[made["method"] == BASELINE]
    prompts = pd.Index(sorted(base["example_id"].unique()), name="example_id")
    made = made[made["example_id"].isin(prompts)]
    points = pd.MultiIndex.from_frame(texts.loc[texts["method"] != BASELINE, STRENGTH_KEY]).unique()

    def matrix(rows: pd.DataFrame, column: str, how: str) -> Float[np.ndarray, "points prompts"]:
        grouped = rows.groupby([*STRENGTH_KEY, "example_id"])[column].agg(how).unstack("example_id")
        return grouped.reindex(index=points, columns=prompts).to_numpy(dtype=float)

    def of_base(column: str, how: str) -> Float[np.ndarray, " prompts"]:
        grouped = base.groupby("example_id")[column].agg(how)
        return grouped.reindex(prompts).to_numpy(dtype=float)

    boot = {"seed": seed, "n_resamples": n_resamples}
    counts = made.groupby(STRENGTH_KEY).size().reindex(points, fill_value=0)
    unsolved = _per_point(texts, "unsolved_positions", points)
    about = points.to_frame(index=False).assign(
        n_texts=counts.to_numpy(), whole=(counts == len(base)).to_numpy() & (unsolved == 0)
    )
    sums = {"base_nll_sum": "sum", "n_tokens": "sum"}
    nll, tokens = (matrix(made, column, how) for column, how in sums.items())
    nll_base, tokens_base = (of_base(column, how) for column, how in sums.items())
    sizes = {}
    for size in ("residual_norm", "l0"):
        if solutions is None:
            sizes[size] = np.full((len(points), 1 + n_resamples), np.nan)
        else:
            sizes[size] = _means(matrix(solutions[solved(solutions)], size, "mean"), boot)
    effects, unsteered = {}, {}
    for measure, name in names.items():
        before = of_base(name, "mean")
        effects[measure] = _means(matrix(made, name, "mean") - before, boot)
        unsteered[measure] = float(np.nanmean(before)) if len(before) else np.nan
    return Points(
        about,
        len(prompts),
        _means(matrix(made, "kl", "mean"), boot),
        _ratios(nll, tokens, boot),
        _ratios(nll_base[None], tokens_base[None], boot)[0],
        sizes["residual_norm"],
        sizes["l0"],
        effects,
        unsteered,
    )


def _per_point(
    texts: pd.DataFrame, column: str, points: pd.MultiIndex
) -> Float[np.ndarray, " points"]:
    if column not in texts:
        return np.zeros(len(points))
    return texts.groupby(STRENGTH_KEY)[column].sum().reindex(points).fillna(0).to_numpy(dtype=float)


def _means(values: Float[np.ndarray, "points prompts"], boot: dict[str, int]) -> Samples:
    """Return the mean of each row over its known values."""
    return _ratios(values, np.ones_like(values), boot)


def _ratios(
    above: Float[np.ndarray, "points prompts"],
    below: Float[np.ndarray, "points prompts"],
    boot: dict[str, int],
) -> Samples:
    """Return Σ above / Σ below of each row, over prompts where both are known."""
    known = ~(np.isnan(above) | np.isnan(below))
    parts = [np.where(known, part, 0.0) for part in (above, below)]
    totals = [part.sum(axis=1, keepdims=True) for part in parts]
    if boot["n_resamples"] and above.shape[1] and len(above):
        drawn = resampled_sums([*parts[0], *parts[1]], **boot)
        halves = np.split(drawn, 2)
        totals = [np.hstack(pair) for pair in zip(totals, halves, strict=True)]
    elif boot["n_resamples"]:
        totals = [np.repeat(total, 1 + boot["n_resamples"], axis=1) for total in totals]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(totals[1] > 0, totals[0] / totals[1], np.nan)


def curve_names(strengths: pd.DataFrame) -> pd.DataFrame:
    """Return ``curve`` and ``strength`` of each strength.

    Args:
        strengths: ``strength_name`` and ``strength``. A program with a budget sweeps the budget at
            a margin; its curve is ordered by the margin at a budget, because a larger budget does
            not mean a larger effect.
    """
    budget = strengths["strength_name"].str.startswith("epsilon at tau=")
    by_margin = strengths["strength"].map("tau at epsilon={:g}".format)
    margin = strengths["strength_name"].str.rpartition("=")[2].where(budget).astype(float)
    return pd.DataFrame(
        {
            "curve": strengths["strength_name"].where(~budget, by_margin),
            "strength": strengths["strength"].where(~budget, margin),
        }
    )


def with_curves(points: Points, solutions: pd.DataFrame) -> pd.DataFrame:
    """Return ``points.about`` with ``curve``, ``strength`` and ``kind`` of each point."""
    first = solutions.drop_duplicates(STRENGTH_KEY)
    named = first[STRENGTH_KEY].assign(**curve_names(first))
    about = points.about.merge(named, on=STRENGTH_KEY, how="left", validate="one_to_one")
    kinds = {method: _kind(solutions, method) for method in about["method"].unique()}
    return about.assign(kind=about["method"].map(kinds))


def _kind(solutions: pd.DataFrame, method: str) -> str:
    if method == RANDOM:
        return "random"
    own = solutions[solutions["method"] == method]
    if own["l0"].notna().any():
        return "features"
    return "dense" if own["residual_norm"].notna().any() else "other"


def effect_curves_table(
    points: Points, about: pd.DataFrame, experiment: str, seed: int
) -> pd.DataFrame:
    """Return the table ``effect_curves`` as ``columns.yaml`` describes it.

    Args:
        points: of the reported prompts.
        about: of :func:`with_curves`.
        experiment: name of the experiment.
        seed: seed of the resampling.
    """
    frames = []
    for (judge, measure), effects in points.effects.items():
        frames.append(
            about.assign(
                experiment=experiment,
                seed=seed,
                judge=judge,
                measure=measure,
                n_prompts=points.n_prompts,
                **_effects(points, measure, effects),
                **_estimates("kl", points.kl),
                perplexity=np.exp(points.log_perplexity[:, 0]),
                residual_norm=points.residual_norm[:, 0],
                l0=points.l0[:, 0],
            )
        )
    names = column_names("effect_curves")
    table = pd.concat(frames)[names] if frames else pd.DataFrame(columns=names)
    table = table.reset_index(drop=True)
    validate_table(table, "effect_curves")
    return table


def _effects(points: Points, measure: str, samples: Samples) -> dict[str, Any]:
    """Return the effects with their intervals, of rates those of the table ``differences``."""
    cells = _estimates("effect", samples)
    ends = zip(*cells.values(), points.about["n_texts"], strict=True)
    for number, (mean, low, high, n) in enumerate(ends):
        if measure == "rate" and not np.isnan(low):
            found = same_interval(Interval(mean, low, high, n), lowest=-1.0, highest=1.0)
            cells["effect_ci_low"][number] = found.low
            cells["effect_ci_high"][number] = found.high
    return cells


def _estimates(name: str, samples: Samples) -> dict[str, Any]:
    ends = [open_interval(row[1:]) for row in samples]
    low, high = np.array(ends).reshape(-1, 2).T
    return {name: samples[:, 0], f"{name}_ci_low": low, f"{name}_ci_high": high}


@dataclass(frozen=True)
class Curve:
    """A curve of one method: its rows in ``about``, and where it reaches the effect.

    Attributes:
        method: whose strengths it joins.
        name: what varies along it, and what is held.
        kind: as in :func:`with_curves`.
        rows: numbers of its points, those that are whole.
        fitted: None without such points.
        place: where it reaches the effect; None if it is not fitted or there is no effect.
    """

    method: str
    name: str
    kind: str
    rows: np.ndarray
    fitted: EffectCurve | None
    place: Place | None

    @property
    def label(self) -> str:
        """Its method and name, as the column ``reference`` has them."""
        return f"{self.method}, {self.name}"

    @property
    def kl(self) -> float:
        """KL at which it reaches the effect; infinite if it does not."""
        return np.inf if self.place is None else float(self.place.cost[0] ** 2)

    @property
    def best(self) -> float:
        """Its largest effect."""
        return -np.inf if self.fitted is None else float(self.fitted.effect[-1, 0])


def fit_curves(
    points: Points, about: pd.DataFrame, measure: Measure, effect: float | None
) -> list[Curve]:
    """Return every curve, with only the points that are whole on it.

    Args:
        points: averages of each strength.
        about: of :func:`with_curves`.
        measure: judge and measure of the effect.
        effect: where to read off the costs; None to fit the curves alone.
    """
    found = []
    for (method, name), rows in about.groupby(["method", "curve"], sort=False):
        on = rows.index[rows["whole"]].to_numpy()
        fitted = place = None
        if len(on):
            # A judge that gives no score to any text of a point says nothing of it.
            on = on[np.isfinite(points.effects[measure][on]).all(axis=1)]
        if len(on):
            fitted = EffectCurve.fit(points.kl[on], points.effects[measure][on])
            place = fitted.reaches(effect) if effect is not None else None
        found.append(Curve(method, name, rows["kind"].iloc[0], on, fitted, place))
    return found


def strengths_of(about: pd.DataFrame, curve: Curve) -> pd.DataFrame:
    """Return all strengths of a curve, also those that are not on it."""
    return about[(about["method"] == curve.method) & (about["curve"] == curve.name)]


def at_the_effect(points: Points, about: pd.DataFrame, curve: Curve) -> dict[str, Any]:
    """Return the status of a curve, how far it reaches, and its costs at the effect.

    A resample in which the curve does not reach the effect has a cost beyond all that were run. Its
    KL, norm and number of features count as infinite. Its perplexity is unknown: it need not rise
    with the strength.
    """
    empty = dict.fromkeys(["best_effect", "best_effect_kl", "reached_share", "strength"], np.nan)
    for name in ("kl", *_COSTS):
        empty |= dict.fromkeys([name, f"{name}_ci_low", f"{name}_ci_high"], np.nan)
    fitted, place = curve.fitted, curve.place
    if fitted is None or place is None:
        return {"status": "not_measured", **empty}
    top = int(np.argmax(fitted.effect[:, 0]))  # the first of equal ones is the cheapest
    cells = empty | {
        "best_effect": float(fitted.effect[top, 0]),
        "best_effect_kl": float(fitted.cost[top, 0] ** 2),
        "reached_share": float(place.reached[1:].mean()) if place.reached.size > 1 else np.nan,
    }
    if not place.reached[0]:
        return {"status": "not_reached", **cells}
    nearest = np.abs(np.sqrt(np.maximum(points.kl[curve.rows, 0], 0)) - place.cost[0]).argmin()
    cells["strength"] = float(about["strength"].iloc[curve.rows[nearest]])
    log_perplexity = fitted.between(
        place, points.log_perplexity[curve.rows], points.base_log_perplexity
    )
    norms, counts = points.residual_norm[curve.rows], points.l0[curve.rows]
    # Strengths that vary the length of one vector have its number of features at any length.
    beyond = np.where(len(counts) > 1 and (counts == counts[0]).all(axis=0), counts[0], np.inf)
    samples = {
        "kl": place.cost**2,
        "perplexity": np.exp(log_perplexity),
        "residual_norm": np.where(
            place.reached, fitted.between(place, norms, np.zeros(norms.shape[1])), np.inf
        ),
        "l0": np.where(place.reached, fitted.between(place, counts), beyond),
    }
    for name, values in samples.items():
        cells |= _cells(name, values)
    return {"status": "reached", **cells}


def against(curve: Curve, reference: Curve | None, effect: float | None) -> dict[str, Any]:
    """Compare a curve with the reference at the matched effect, resample by resample.

    Args:
        curve: of a method.
        reference: the best dense direction's; None if there is none.
        effect: the matched effect; None if there is none.

    Returns:
        ``kl_ratio``, ``kl_difference`` (nats per token) and ``effect_difference`` with the ends of
        their 95 % intervals, as ``columns.yaml`` describes them; NaN where undefined. A resample in
        which neither curve reaches the effect counts against both ends of the first two, one in
        which the reference does not against both ends of the last.
    """
    cells: dict[str, Any] = {}
    for name in ("kl_ratio", "kl_difference", "effect_difference"):
        cells |= dict.fromkeys([name, f"{name}_ci_low", f"{name}_ci_high"], np.nan)
    known = None not in (curve.fitted, curve.place, effect) and reference is not None
    if not known or reference.place is None or not reference.place.reached[0]:
        return cells
    if curve is reference:
        for name, same in (("kl_ratio", 1.0), ("kl_difference", 0.0), ("effect_difference", 0.0)):
            cells |= _cells(name, np.full(curve.place.cost.shape, same))
        return cells
    mine, theirs = curve.place.cost**2, reference.place.cost**2
    within = curve.fitted.effect_within(np.where(np.isfinite(theirs), reference.place.cost, 0.0))
    cells |= _cells("effect_difference", np.where(np.isfinite(theirs), within - effect, np.nan))
    if curve.place.reached[0]:
        with np.errstate(invalid="ignore"):
            cells |= _cells("kl_difference", mine - theirs)
        cells |= _cells("kl_ratio", paired_ratio(mine, theirs), lowest=0.0)
    return cells


def _cells(
    name: str, samples: Float[np.ndarray, " samples"], *, lowest: float = -np.inf
) -> dict[str, float]:
    low, high = open_interval(samples[1:], lowest=lowest)
    return {name: float(samples[0]), f"{name}_ci_low": low, f"{name}_ci_high": high}
