"""How far an experiment's texts carry a verdict: what they could detect, and whether judges agree.

The sentences are made from ``differences.csv`` and ``judges.csv``. A difference that is smaller
than what the prompts detect is said to be undecided, not absent.
"""

from typing import Any

import pandas as pd

from steering_core.config.methods import BASELINE
from steering_core.tables.words import is_true

_POWER = "with 80 % power, two-sided at 5 %"


def _chosen(differences: pd.DataFrame, reference: str) -> pd.DataFrame:
    """Return the rows by the first judge, at selected strengths, against a reference."""
    if differences.empty:
        return differences
    own = differences[differences["judge"] == differences["judge"].iloc[0]]
    return own[is_true(own["selected"]) & (own["reference"] == reference)]


def power_sentences(
    differences: pd.DataFrame, prompts: str, sparse: str | None = None
) -> list[str]:
    """Say what change the run detects, and whether a method differs from the best dense direction.

    Args:
        differences: the table ``differences``.
        prompts: the prompts and their texts in words: ``50 prompts with one text each``.
        sparse: the best method made of features; None leaves the comparison out.
    """
    found = []
    against = _chosen(differences, BASELINE)["rate_detectable"].dropna()
    if len(against):
        found.append(
            f"{prompts} detect a change of {against.median():.3g} in the share of texts in the "
            f"target class ({_POWER}; median of the methods at their selected strengths). A "
            "smaller change can be missed."
        )
    rows = _chosen(differences, "best_dense")
    # A method whose texts are judged as those of the reference has no difference to detect.
    rows = rows[rows["rate_detectable"].notna() | (rows["rate_difference"] == 0)]
    if rows.empty:
        return found
    more = int((rows["rate_difference_ci_low"] > 0).sum())
    less = int((rows["rate_difference_ci_high"] < 0).sum())
    dense = rows["reference_method"].iloc[0]
    found.append(
        f"At the selected strengths, {more + less} of {len(rows)} methods differ from {dense}, the "
        "best dense direction, in the share of texts in the target class beyond noise: "
        f"{more} have a larger share, {less} a smaller one."
    )
    own = rows[rows["method"] == sparse]
    own = own[own["rate_detectable"].notna()]
    return found + [_difference(row) for _, row in own.iterrows()]


def _difference(row: pd.Series) -> str:
    low, high, smallest = (
        row[name]
        for name in ("rate_difference_ci_low", "rate_difference_ci_high", "rate_detectable")
    )
    text = (
        f"At their selected strengths, {row['method']} and {row['reference_method']} differ by "
        f"{row['rate_difference']:+.3g} in the share of texts in the target class (95 % interval "
        f"{low:+.3g} to {high:+.3g}) and by {row['kl_difference']:+.3g} nats per token. The "
        f"smallest difference of the share that this run detects is {smallest:.3g}"
    )
    if low > 0 or high < 0:
        return f"{text}, and this one is more than noise."
    if abs(row["rate_difference"]) < smallest:
        return f"{text}, so it leaves undecided which has the larger effect."
    return f"{text}, but the interval contains 0."


def judge_sentences(judges: pd.DataFrame) -> list[str]:
    """Say how far each further judge agrees with the first."""
    found, first = [], judges[is_true(judges["headline"])]
    for _, row in judges[~is_true(judges["headline"])].iterrows():
        if pd.isna(row["agreement"]):
            continue
        kappa = "" if pd.isna(row["kappa"]) else f", Cohen's κ {row['kappa']:.2f}"
        found.append(
            f"{row['judge']} agrees with {first['judge'].iloc[0]} on {row['agreement']:.0%} of the "
            f"texts that both put in a class (95 % interval {row['agreement_ci_low']:.0%} to "
            f"{row['agreement_ci_high']:.0%}"
            f"{kappa})."
        )
    return found


def disagreements(differences: pd.DataFrame) -> list[str]:
    """Return the methods whose texts two judges see move in opposite directions."""
    if differences.empty:
        return []
    found = []
    for reference, words in (
        (BASELINE, "against no steering"),
        ("best_dense", "beside the best dense direction"),
    ):
        rows = _chosen(differences, reference)
        names = rows[rows["judges_agree"].notna() & ~is_true(rows["judges_agree"])]["method"]
        if len(names):
            found.append(
                f"judges disagree on the direction of the effect {words}, each beyond noise: "
                f"{', '.join(dict.fromkeys(names))}"
            )
    return found


def undetectable_effect(
    differences: pd.DataFrame, effect: float | None, measure: str
) -> float | None:
    """Return the smallest change that the run detects, if the effect is below it; else None.

    Args:
        differences: the table ``differences``.
        effect: at which the methods are compared; None or NaN if there is none.
        measure: of the effect; only the ``rate`` has a smallest change that is detected.
    """
    smallest = _chosen(differences, BASELINE)["rate_detectable"].median()
    below = measure == "rate" and effect is not None and effect < smallest
    return float(smallest) if below else None


def power_facts(differences: pd.DataFrame, sparse: str | None) -> dict[str, Any] | None:
    """Return what the run detects, and the sparse method beside the dense direction."""
    against = _chosen(differences, BASELINE)["rate_detectable"].dropna()
    if against.empty:
        return None
    rows = _chosen(differences, "best_dense")
    own = rows[rows["method"] == sparse]
    names = ("rate_difference", "rate_difference_ci_low", "rate_difference_ci_high")
    beside = None
    if len(own):
        beside = {name: own[name].iloc[0] for name in ("method", "reference_method", *names)}
        beside["rate_detectable"] = own["rate_detectable"].iloc[0]
    return {"rate_detectable": against.median(), "beside_best_dense": beside}
