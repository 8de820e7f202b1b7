"""What each method does beside three references, by every judge, on the same prompts and draws.

``differences.csv`` has paired differences. ``judges.csv`` says how far judges agree. Prompts are
the clusters: the draws of a prompt are joined first, as in all tables
(:func:`steering_core.tables.pareto.of_prompts`), then prompts are resampled.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.stats import norm, spearmanr
from sklearn.metrics import cohen_kappa_score

from steering_core.config.methods import BASELINE, RANDOM
from steering_core.statistics.bootstrap import (
    Interval,
    change_interval,
    mean_interval,
    share_interval,
)
from steering_core.statistics.paired import LEVEL
from steering_core.tables.columns import column_names, interval_cells, validate_table
from steering_core.tables.measured import of_prompts
from steering_core.tables.words import is_true

#: Power of :func:`detectable`, at the significance level of every test.
POWER = 0.8
#: The score of a text that a judge puts in neither class.
NEUTRAL = 0.5


@dataclass(frozen=True)
class Reference:
    """What a method is compared with.

    Attributes:
        name: ``no_steering``, ``random_direction`` or ``best_dense``.
        method: the method behind the name.
        index: its strength.
    """

    name: str
    method: str
    index: int


def references(pareto: pd.DataFrame, dense: str | None) -> list[Reference]:
    """Return the references of an experiment, as far as it has them.

    A random direction and the best dense direction stand at their selected strengths, which
    validation prompts chose.

    Args:
        pareto: the table ``pareto``.
        dense: the best dense direction, :func:`dense_method` of the table ``matched``.
    """
    index = pareto.groupby("method", sort=False).cumcount()
    numbered = pareto.assign(strength_index=index)
    chosen = numbered[is_true(numbered["selected"])]
    found = []
    for name, method in (
        (BASELINE, BASELINE),
        (RANDOM, RANDOM),
        ("best_dense", dense),
    ):
        rows = numbered if name == BASELINE else chosen
        rows = rows[rows["method"] == method]
        if len(rows):
            found.append(Reference(name, str(method), int(rows["strength_index"].iloc[0])))
    return found


def detectable(differences: Float[np.ndarray, " n"]) -> float | None:
    """Return the true mean difference that n paired differences detect with 80 % power.

    Of a two-sided test at 5 %: (z₀.₉₇₅ + z₀.₈) times the standard error (Cohen 1988, Statistical
    Power Analysis for the Behavioral Sciences, section 2.3). None for fewer than two prompts, or
    if all differ by the same: such differences say nothing of how much others would vary.
    """
    if len(differences) < 2 or (differences == differences[0]).all():
        return None
    error = differences.std(ddof=1) / np.sqrt(len(differences))
    return float((norm.ppf(1 - LEVEL / 2) + norm.ppf(POWER)) * error)


def difference_table(
    experiment: str,
    texts: pd.DataFrame,
    pareto: pd.DataFrame,
    judges: Sequence[str],
    target_class: int,
    *,
    dense: str | None,
    **boot: Any,
) -> pd.DataFrame:
    """Return the table ``differences`` as ``columns.yaml`` describes it.

    Args:
        experiment: its name.
        texts: a row per reported text: :data:`steering_core.methods.solutions.TEXT_KEY`,
            ``kl_sum``, ``n_tokens``, ``score`` and ``judged`` of the headline judge, and
            ``score_{name}``, ``judged_{name}`` of the others. A prompt that lacks one of its draws
            counts as without a text.
        pareto: the table ``pareto``.
        judges: names of the judges, the headline first.
        target_class: the class that steering aims at.
        dense: the best dense direction, as for :func:`references`.
        **boot: ``seed`` and ``n_resamples``.
    """
    joined = of_prompts(texts)
    made = joined[joined["n_tokens"] > 0]
    made = made.assign(kl=made["kl_sum"] / made["n_tokens"])
    index = pareto.groupby("method", sort=False).cumcount()
    strengths = pareto.assign(strength_index=index)
    compared = references(pareto, dense)
    rows = []
    for number, judge in enumerate(judges):
        suffix = "" if number == 0 else f"_{judge}"
        score = made[f"score{suffix}"]
        rated = made.assign(
            rate=made[f"judged{suffix}"], level=score if target_class == 1 else 1 - score
        )
        means = {
            key: group.set_index("example_id")[["rate", "level", "kl"]].sort_index()
            for key, group in rated.groupby(["method", "strength_index"])
        }
        for at in strengths.itertuples():
            own = means.get((at.method, at.strength_index))
            if own is None or at.method == BASELINE:
                continue
            for reference in compared:
                other = means.get((reference.method, reference.index))
                if other is None or reference.method == at.method:
                    continue
                rows.append(
                    {
                        "experiment": experiment,
                        "method": at.method,
                        "strength_name": at.strength_name,
                        "strength": at.strength,
                        "tau": at.tau,
                        "selected": at.selected,
                        "judge": judge,
                        "reference": reference.name,
                        "reference_method": reference.method,
                        **_cells(own, other, boot),
                    }
                )
    names = column_names("differences")
    table = pd.DataFrame(rows, columns=names)
    table["selected"] = table["selected"].astype("boolean")
    table["judges_agree"] = _agree(table)
    validate_table(table, "differences")
    return table


def _cells(own: pd.DataFrame, other: pd.DataFrame, boot: dict[str, Any]) -> dict[str, Any]:
    """Return the paired differences over the prompts that both have."""
    change = (own - other).dropna(subset=["rate", "kl"])
    levels = change["level"].dropna().to_numpy(dtype=float)
    rates = change["rate"].to_numpy(dtype=float)
    cells: dict[str, Any] = {"n_prompts": len(change)}
    found = change_interval(rates, np.ones_like(rates), **boot)
    cells |= interval_cells("rate_difference", "rate_difference_ci", found)
    cells["rate_detectable"] = detectable(rates)
    cells |= interval_cells(
        "score_difference", "score_difference_ci", mean_interval(levels, **boot)
    )
    cells["score_detectable"] = detectable(levels)
    kl = mean_interval(change["kl"].to_numpy(dtype=float), **boot)
    return cells | interval_cells("kl_difference", "kl_difference_ci", kl)


def _agree(table: pd.DataFrame) -> pd.Series:
    """Return whether no two judges see the mean score move in opposite directions.

    Empty with one judge. A judge whose interval contains 0 sees no direction.
    """
    key = ["method", "strength_name", "strength", "tau", "reference"]
    sign = np.sign(table["score_difference"]).where(
        (table["score_difference_ci_low"] > 0) | (table["score_difference_ci_high"] < 0), 0
    )
    grouped = table.assign(sign=sign).groupby(key, dropna=False)
    opposite = (grouped["sign"].transform("max") > 0) & (grouped["sign"].transform("min") < 0)
    several = grouped["judge"].transform("nunique") > 1
    return (~opposite).astype("boolean").where(several, pd.NA)


def judge_table(
    experiment: str, texts: pd.DataFrame, judges: Sequence[str], **boot: Any
) -> pd.DataFrame:
    """Return the table ``judges``: how far each judge agrees with the headline judge.

    A text that one of the two puts in neither class is on no side: it counts neither for nor
    against their agreement.

    Args:
        experiment: its name.
        texts: as for :func:`difference_table`.
        judges: names of the judges, the headline first.
        **boot: ``seed`` and ``n_resamples``.
    """
    made = texts[texts["n_tokens"] > 0]
    rows = []
    for number, judge in enumerate(judges):
        suffix = "" if number == 0 else f"_{judge}"
        judged, score = made[f"judged{suffix}"], made[f"score{suffix}"]
        scored = made["score"].notna() & score.notna()
        sided = (made["score"] != NEUTRAL) & (score != NEUTRAL)
        both = scored & sided
        row: dict[str, Any] = {
            "experiment": experiment,
            "judge": judge,
            "headline": number == 0,
            "n_texts": int(score.notna().sum()),
            "n_unscored": int(score.isna().sum()),
            "n_neutral": int((scored & ~sided).sum()),
        }
        rates = judged.groupby(made["example_id"]).mean().dropna().to_numpy(dtype=float)
        row |= interval_cells("rate", "rate_ci", share_interval(rates, np.ones_like(rates), **boot))
        same = (made["judged"] == judged)[both].groupby(made["example_id"][both]).mean()
        same = same.to_numpy(dtype=float)
        agreement = Interval(None, None, None, 0)
        kappa = correlation = None
        if number:
            agreement = share_interval(same, np.ones_like(same), **boot)
            kappa = _kappa(made.loc[both, "judged"], judged[both])
            correlation = _rank_correlation(made.loc[scored, "score"], score[scored])
        row |= interval_cells("agreement", "agreement_ci", agreement)
        rows.append({**row, "kappa": kappa, "rank_correlation": correlation})
    table = pd.DataFrame(rows, columns=column_names("judges"))
    for name in ("agreement", "agreement_ci_low", "agreement_ci_high", "kappa", "rank_correlation"):
        table[name] = table[name].astype(float)
    validate_table(table, "judges")
    return table


def _kappa(left: pd.Series, right: pd.Series) -> float | None:
    """Return Cohen's κ of two judges; None if one of them gives a single verdict."""
    if left.nunique() < 2 or right.nunique() < 2:
        return None
    return float(cohen_kappa_score(left, right))


def _rank_correlation(left: pd.Series, right: pd.Series) -> float | None:
    """Return Spearman's correlation of two judges' scores; None if one of them is constant."""
    if left.nunique() < 2 or right.nunique() < 2:
        return None
    return float(spearmanr(left, right).statistic)
