"""Checks of both sides of a comparison: can a change of the success rate be an effect of steering?

It cannot where the unsteered model does not answer, or guesses: steering then repairs the form of
an answer, or moves all answers to one letter that is sometimes right.
"""

from typing import Any

import pandas as pd
from scipy.stats import binomtest

from steering_core.metrics.judges import is_empty

#: Share of answers that may be empty or unreadable on either side.
MAX_MISSING = 0.1
#: Share of answers that may be the same letter, where the golds do not have it as often.
MAX_SAME = 0.9
#: So many repaired answers that are all the same letter are a sign of a bias to that letter.
MANY_REPAIRED = 5
#: An unsteered accuracy must beat guessing at this level (one-sided binomial test).
LEVEL = 0.05


def answer_cells(texts: pd.Series, answers: pd.Series) -> dict[str, Any]:
    """Return counts of missing answers and the most frequent answer of one side.

    Args:
        texts: what the model wrote.
        answers: what was read off it; None where there is nothing to read.

    Returns:
        ``n_empty``, texts without a word; ``n_unreadable``, texts with a word but no answer;
        ``top_answer``, the most frequent answer (of equals the first in the alphabet), and
        ``top_answer_share``, its share of all texts; both None if there is no answer.
    """
    empty = is_empty(texts)
    counts = answers.dropna().value_counts()
    cells = {
        "n_empty": int(empty.sum()),
        "n_unreadable": int((answers.isna() & ~empty).sum()),
        "top_answer": None,
        "top_answer_share": None,
    }
    if counts.empty:
        return cells
    most = int(counts.max())
    top = min(counts.index[counts == most])
    return cells | {"top_answer": top, "top_answer_share": most / len(texts)}


def guessing_cells(golds: pd.Series, n_options: pd.Series) -> dict[str, float | None]:
    """Return the accuracy of guessing: ``chance``, and ``constant_accuracy`` of the best letter.

    Both are None for tasks without options, such as numbers and free text.

    Args:
        golds: the right letters.
        n_options: number of options of each example; null where it has none.
    """
    if n_options.isna().any() or golds.empty:
        return {"chance": None, "constant_accuracy": None}
    return {
        "chance": float((1 / n_options.astype(float)).mean()),
        "constant_accuracy": float(golds.value_counts(normalize=True).max()),
    }


def baseline_concerns(pairs: pd.DataFrame) -> list[str]:
    """Return why the unsteered answers of one seed are no baseline; empty if they are one.

    Args:
        pairs: rows with answers, as :func:`steering_core.corrsteer.pairs.paired` returns them.
    """
    found = _missing("unsteered", answer_cells(pairs["before"], pairs["answer_before"]), len(pairs))
    guessing = guessing_cells(pairs["gold"], pairs["n_options"])
    if guessing["chance"] is None:
        return found
    right, n = int(pairs["success_before"].astype(bool).sum()), len(pairs)
    name, least = "guessing", guessing["chance"]
    if guessing["constant_accuracy"] >= least:
        letter, least = pairs["gold"].mode().iloc[0], guessing["constant_accuracy"]
        name = f"always answering {letter!r}"
    p_value = binomtest(right, n, least, alternative="greater").pvalue
    if p_value >= LEVEL:
        found.append(
            f"the unsteered accuracy ({right / n:.3f} of {n}) is not shown to be better than "
            f"{name} ({least:.3f}, p = {p_value:.2g})"
        )
    return found


def steered_concerns(pairs: pd.DataFrame) -> list[str]:
    """Return what keeps the steered answers of one seed from showing an effect on the task."""
    cells = answer_cells(pairs["after"], pairs["answer_after"])
    found = _missing("steered", cells, len(pairs))
    constant = guessing_cells(pairs["gold"], pairs["n_options"])["constant_accuracy"]
    if constant is None:
        return found
    share = cells["top_answer_share"]
    if share is not None and share > MAX_SAME >= constant:
        found.append(f"{share:.0%} of the steered answers are {cells['top_answer']!r}")
    before, after = (pairs[side].astype(bool) for side in ("success_before", "success_after"))
    repaired = pairs.loc[~before & after, "answer_after"]
    if len(repaired) >= MANY_REPAIRED and repaired.nunique() == 1:
        found.append(f"all {len(repaired)} repaired answers are {repaired.iloc[0]!r}")
    return found


def _missing(side: str, cells: dict[str, Any], n: int) -> list[str]:
    empty, unreadable = cells["n_empty"], cells["n_unreadable"]
    if empty + unreadable <= MAX_MISSING * n:
        return []
    return [f"of {n} {side} answers {empty} are empty and {unreadable} cannot be read"]
