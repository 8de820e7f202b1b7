"""The comparison at matched effect: what each method costs where all have the same effect.

:func:`compare` finds where the curves of all methods reach the effect. :func:`matched_table`
compares them, resample by resample, with the best dense direction.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from steering_core.config.task import Task
from steering_core.tables.caveats import INTERPOLATED, ON_REPORTED, warnings_cell
from steering_core.tables.columns import column_names, validate_table
from steering_core.tables.effect_curves import (
    STRENGTH_KEY,
    Curve,
    Measure,
    Points,
    against,
    at_the_effect,
    effect_curves_table,
    fit_curves,
    measure_points,
    strengths_of,
    text_measures,
    with_curves,
)
from steering_core.tables.measured import Measured, gather


@dataclass(frozen=True)
class Matching:
    """What a comparison matches, and how its intervals are made.

    Attributes:
        judge: name of the first judge.
        target_class: class that the task steers to.
        effect: the change of the first judge's rate to match; None for half of the largest.
        budget: largest KL of a strength that sets the effect, nats per token.
        seed: seed of the resampling.
        n_resamples: number of resamples.
    """

    judge: str
    target_class: int = 1
    effect: float | None = None
    budget: float = 1.0
    seed: int = 0
    n_resamples: int = 2000

    @classmethod
    def of(cls, task: Task, settings: Mapping[str, Any]) -> "Matching":
        """Return that of an experiment.

        Args:
            task: of the experiment.
            settings: ``seed``, ``bootstrap_resamples``, ``selection_kl`` and ``matched_effect``.
        """
        effect = settings["matched_effect"]
        return cls(
            judge=task.judge_names[0],
            target_class=task.target_class,
            effect=None if effect == "half" else effect,
            budget=settings["selection_kl"],
            seed=settings["seed"],
            n_resamples=settings["bootstrap_resamples"],
        )


@dataclass(frozen=True)
class AtEffect:
    """The curves by one judge and measure, where they have one effect.

    Attributes:
        measure: judge and measure.
        effect: the matched effect; None if no strength has one.
        curves: on the reported prompts.
        choice: the same curves on the prompts that choose between them; ``curves`` itself where the
            validation prompts do not have the measure.
    """

    measure: Measure
    effect: float | None
    curves: list[Curve]
    choice: list[Curve]

    @property
    def validated(self) -> bool:
        """Whether validation prompts set the effect and choose, and not the reported ones."""
        return self.choice is not self.curves


@dataclass(frozen=True)
class Comparison:
    """All curves of an experiment by every judge and measure.

    Attributes:
        matching: what was matched.
        points: of the reported prompts.
        about: of :func:`with_curves`.
        groups: by judge and measure; the first judge's rate comes first.
        validated: whether there are validation prompts.
    """

    matching: Matching
    points: Points
    about: pd.DataFrame
    groups: list[AtEffect]
    validated: bool

    def shared_cells(self, group: AtEffect, experiment: str) -> dict[str, Any]:
        """Return the cells that all rows of a judge and measure have."""
        return {
            "experiment": experiment,
            "seed": self.matching.seed,
            "judge": group.measure[0],
            "measure": group.measure[1],
            "effect": np.nan if group.effect is None else group.effect,
            "unsteered": self.points.unsteered[group.measure],
            "n_prompts": self.points.n_prompts,
        }


def compare(measured: Measured, matching: Matching, *, draws: int = 1) -> Comparison:
    """Fit the curves of all methods, and find where they reach the effect.

    The validation prompts set the effect and choose between curves. Chosen on the reported prompts,
    the best of several would look better than it is.

    Args:
        measured: of :func:`steering_core.tables.measured.gather`.
        matching: what is matched.
        draws: texts that each row of ``measured.texts`` was joined from.
    """
    prompts = measured.solutions[
        measured.solutions["example_id"].isin(measured.texts["example_id"])
    ]
    judge, target_class = matching.judge, matching.target_class
    points = measure_points(
        measured.texts,
        prompts,
        text_measures(measured.texts, judge, target_class, draws),
        seed=matching.seed,
        n_resamples=matching.n_resamples,
    )
    about = with_curves(points, prompts)
    about = about.assign(n_texts=draws * about["n_texts"])
    choosing, texts = points, measured.validation_texts
    if texts is not None:
        choosing = measure_points(texts, None, text_measures(texts, judge, target_class, draws))
    groups = []
    for number, measure in enumerate(points.effects):
        level = matching.effect if number == 0 else None
        on = choosing if measure in choosing.effects else points
        if level is None:
            level = effect_to_match(on, measure, matching.budget)
        curves = choice = fit_curves(points, about, measure, level)
        if texts is not None and on is choosing:
            same = choosing.about.merge(
                about[[*STRENGTH_KEY, "curve", "kind"]],
                on=STRENGTH_KEY,
                how="inner",
                validate="one_to_one",
            )
            by_name = {c.label: c for c in fit_curves(choosing, same, measure, level)}
            choice = [by_name.get(c.label, _unmeasured(c)) for c in curves]
        groups.append(AtEffect(measure, level, curves, choice))
    return Comparison(matching, points, about, groups, texts is not None)


def _unmeasured(curve: Curve) -> Curve:
    return Curve(curve.method, curve.name, curve.kind, curve.rows[:0], None, None)


def effect_to_match(points: Points, measure: Measure, budget: float) -> float | None:
    """Return half of the largest change of a whole point with a KL of at most ``budget``.

    None if no point changes the measure towards the target class.
    """
    allowed = points.about["whole"].to_numpy() & (points.kl[:, 0] <= budget)
    changes = points.effects[measure][allowed, 0]
    best = np.nanmax(changes) if np.isfinite(changes).any() else 0.0
    return float(best / 2) if best > 0 else None


def read_comparison(files: Any, task: Task, settings: Mapping[str, Any]) -> Comparison:
    """Return the comparison of an experiment from the files of its stages.

    Args:
        files: paths ``solutions`` and ``divergence`` (several each), ``effects`` and ``judged``.
        task: of the experiment.
        settings: as of :meth:`Matching.of`.
    """
    judged = pd.read_parquet(files.judged)
    measured = gather(
        pd.read_parquet([*files.solutions]),
        pd.read_parquet(files.effects),
        [pd.read_parquet(path) for path in files.divergence],
        judged,
    )
    return compare(measured, Matching.of(task, settings), draws=int(judged["draw"].nunique()))


def matched_table(compared: Comparison, experiment: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the tables ``matched`` and ``effect_curves`` as ``columns.yaml`` describes them.

    Args:
        compared: of :func:`compare`.
        experiment: name of the experiment.
    """
    rows: list[dict[str, Any]] = []
    for group in compared.groups:
        warnings = []
        if not group.validated:
            why = "there are no validation prompts (n_validation_prompts)"
            if compared.validated:
                why = "the validation prompts do not have this measure"
            warnings.append(f"{why}, {ON_REPORTED}")
        for row in _rows(compared, group, warnings):
            if not group.validated:
                row["validation_kl"] = np.nan
            rows.append(compared.shared_cells(group, experiment) | row)
    names = column_names("matched")
    table = pd.DataFrame(rows, columns=names)
    table["reference"] = table["reference"].astype(object)
    validate_table(table, "matched")
    curves = effect_curves_table(
        compared.points, compared.about, experiment, compared.matching.seed
    )
    return table, curves


def _rows(compared: Comparison, group: AtEffect, warnings: list[str]) -> list[dict[str, Any]]:
    """Return a row per curve."""
    points, about, curves, choice = compared.points, compared.about, group.curves, group.choice
    best = {kind: _chosen(choice, kind) for kind in {curve.kind for curve in curves}}
    dense = best.get("dense")
    reference = None if dense is None else curves[dense]
    found = []
    for number, curve in enumerate(curves):
        strengths = strengths_of(about, curve)
        row = {
            "method": curve.method,
            "curve": curve.name,
            "kind": curve.kind,
            "n_texts": int(strengths["n_texts"].max()),
            "n_points": len(curve.rows),
            "validation_kl": choice[number].kl if np.isfinite(choice[number].kl) else np.nan,
            "reference": None if reference is None else reference.label,
            "best_of_kind": number == best[curve.kind],
            **at_the_effect(points, about, curve),
            **against(curve, reference, group.effect),
        }
        said = [*warnings, *warnings_of(about, curve)]
        found.append(row | {"warnings": warnings_cell(said) or None})
    return found


def _chosen(curves: list[Curve], kind: str) -> int | None:
    """Return the number of the best curve of a kind: by KL at the effect, then by effect."""
    own = [number for number, curve in enumerate(curves) if curve.kind == kind]
    own = [number for number in own if curves[number].fitted is not None]
    return min(own, key=lambda number: (curves[number].kl, -curves[number].best), default=None)


def dense_method(matched: pd.DataFrame) -> str | None:
    """Return the best dense direction by the first judge, from the table ``matched``.

    This is the one reference of all tables. None if the experiment has no dense direction.
    """
    if matched.empty or pd.isna(matched["reference"].iloc[0]):
        return None
    return str(matched["reference"].iloc[0]).partition(", ")[0]


def warnings_of(about: pd.DataFrame, curve: Curve) -> list[str]:
    """Return what to know before quoting a curve."""
    said, n = [], len(strengths_of(about, curve))
    if 0 < len(curve.rows) < n:
        said.append(
            f"{n - len(curve.rows)} of {n} strengths are not on the curve: they could not steer "
            "every prompt and position"
        )
    place = curve.place
    if place is not None and place.reached[0] and place.after[0] == 1 and place.share[0] < 1:
        said.append(INTERPOLATED)
    return said
