"""From answers to the table of results.

Answers before and after steering are paired by example (:func:`paired`), summed up in a row for
each method and seed (:class:`Summary`), and checked for signs that a change is no effect of
steering (:func:`baseline_concerns`, :func:`steered_concerns`).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.compute as pc
import pyarrow.parquet as pq
from scipy.stats import binomtest

from steering_core.config.methods import UNSTEERED
from steering_core.errors import DataError
from steering_core.metrics.judges import is_empty
from steering_core.metrics.refusal import COMPLY, REFUSE
from steering_core.statistics.bootstrap import (
    UNDEFINED,
    Interval,
    change_interval,
    ratio_interval,
    share_interval,
)
from steering_core.statistics.paired import (
    LEVEL,
    positions_after,
    sign_test,
    success_changes,
)
from steering_core.tables.columns import made_table

_NO_BASELINE = "the unsteered answers are no baseline"


def read_answers(path: str | Path, method: str) -> pd.DataFrame:
    """Read the answers under a method.

    Args:
        path: of a table of several methods, with a column ``method``, or of this one alone.
        method: its name.

    Raises:
        DataError: if the table has no row of the method.
    """
    table = pq.read_table(path)
    if "method" in table.column_names:
        table = table.filter(pc.equal(table["method"], method)).drop_columns("method")
        if not table.num_rows:
            raise DataError(f"{path} has no answers under {method}: delete it and run again.")
    return table.to_pandas()


def warnings_of(table: pd.DataFrame) -> list[str]:
    """Return each warning of the table once, with the methods that have it.

    Args:
        table: rows of a table of results, one a method.
    """
    found = []
    for warning, rows in table.groupby("warnings", sort=False):
        if not warning:
            continue
        methods = [method for method in rows["method"] if method != UNSTEERED]
        about = f"no effect of {', '.join(methods)} can be claimed" if methods else _NO_BASELINE
        found.append(f"{about}: {warning}")
    return found


def result_table(
    experiment: str,
    runs: Mapping[int, Mapping[str, pd.DataFrame]],
    *,
    n_resamples: int,
    suggestion: str = "",
) -> pd.DataFrame:
    """Return the table ``corrsteer.csv``: a row per method and seed, and one over all seeds.

    The accuracy over all seeds is the mean of the seeds' accuracies; counts of changes are summed.
    Seeds share examples. Intervals therefore resample examples, each with its answers under all
    seeds. McNemar's test needs independent pairs: over several seeds it is the sign test of the
    examples by their net change.
    Examples that a method does not answer are left out on both sides and counted. A seed under
    which a method answers nothing is left out of the row over all seeds and named in its reason. A
    method without any answer has empty cells.

    Args:
        experiment: name for the table.
        runs: for each seed, the answers of each method; ``unsteered`` is the baseline.
        n_resamples: of the bootstrap.
        suggestion: advice for when the unsteered answers are no baseline; may be empty.

    Raises:
        DataError: if a seed has no baseline, or it does not pair up.
    """
    rows = []
    for method in next(iter(runs.values())):
        tables = {}
        for seed, answers in runs.items():
            if UNSTEERED not in answers:
                raise DataError(
                    f"seed {seed} has no unsteered answers to compare with: run its stages again."
                )
            tables[seed] = paired(answers[UNSTEERED], answers[method])
        parts = {str(seed): ({seed: table}, seed) for seed, table in tables.items()}
        for name, (pairs, seed) in {**parts, "all": (tables, 0)}.items():
            summary = Summary(pairs, n_resamples=n_resamples, seed=seed, suggestion=suggestion)
            row = summary.row(changes=method != UNSTEERED)
            rows.append({"experiment": experiment, "method": method, "seed": name, **row})
    return made_table(rows, "corrsteer")


def paired(baseline: pd.DataFrame, answers: pd.DataFrame) -> pd.DataFrame:
    """Return the answers before and after steering, a row for each example of the baseline.

    Columns: ``example_id, prompt, gold, n_options, before, after, answer_before, answer_after,
    success_before, success_after, status, reason, layers, strength, norm, n_features``; the last
    six are of the steered side. ``before`` and ``after`` are the texts.

    Raises:
        DataError: if the two sides are not of the same examples with the same prompts.
    """
    positions = positions_after(baseline["example_id"].tolist(), answers["example_id"].tolist())
    left, right = baseline.reset_index(drop=True), answers.iloc[positions].reset_index(drop=True)
    if not (left["prompt"] == right["prompt"]).all():
        raise DataError(
            "steered and unsteered answers are to different prompts: answer both with the same "
            "settings."
        )
    pairs = left[["example_id", "prompt", "gold", "n_options"]].copy()
    pairs["before"], pairs["after"] = left["text"], right["text"]
    for name in ("answer", "success"):
        pairs[f"{name}_before"], pairs[f"{name}_after"] = left[name], right[name]
    of_steered = ["status", "reason", "layers", "strength", "norm", "n_features"]
    return pairs.join(right[of_steered])


class Summary:
    """The pairs of one method under one seed or several.

    Examples without an answer are left out on both sides, except in ``accuracy_all``. A seed under
    which no example has an answer is left out and named in the reason.

    Args:
        pairs: for each seed, the table of :func:`paired`.
        n_resamples: of the bootstrap.
        seed: of the bootstrap.
        suggestion: advice for when the unsteered answers are no baseline; may be empty.
    """

    def __init__(
        self,
        pairs: Mapping[int, pd.DataFrame],
        *,
        n_resamples: int,
        seed: int,
        suggestion: str = "",
    ):
        self.suggestion = suggestion
        self.level = {"seed": seed, "n_resamples": n_resamples}
        self.whole = pd.concat([table.assign(seed=of) for of, table in pairs.items()])
        answered = {of: table[table["status"] == "ok"] for of, table in pairs.items()}
        self.answered = {of: table for of, table in answered.items() if len(table)}
        self.without = [of for of in pairs if of not in self.answered]
        self.several = len(self.answered) > 1
        if self.answered:
            self.rows = self.whole[self.whole["status"] == "ok"].reset_index(drop=True)
            self.before = self.rows["success_before"].to_numpy(dtype=bool)
            self.after = self.rows["success_after"].to_numpy(dtype=bool)

    def row(self, *, changes: bool) -> dict[str, Any]:
        """Return the cells of the row; with ``changes`` also those that compare with unsteered."""
        row = self._counts()
        if not self.answered:
            whole = self.whole
            baseline = float(whole["success_before"].astype(bool).mean())
            reasons = "; ".join(dict.fromkeys(whole["reason"]))
            row["baseline_accuracy"] = baseline
            row |= self._answers(whole)
            row |= {"n_seeds": len(self.without), "seeds": " ".join(map(str, self.without))}
            return {**row, "status": "undefined", "reason": reasons}
        row |= self._levels() | self._sizes() | self._answers(self.rows)
        row |= {"reason": "; ".join(filter(None, self._reasons()))}
        row |= {"warnings": "; ".join(self._warnings(steered=changes))}
        if changes:
            row |= self._changes(row["reason"])
        return row

    def _counts(self) -> dict[str, Any]:
        answered = self.answered.values()
        return {
            "n": sum(map(len, answered)),
            "n_missing": int((self.whole["status"] != "ok").sum()),
            "n_seeds": len(self.answered),
            "seeds": " ".join(map(str, self.answered)),
            "layers": " / ".join(
                filter(None, (" ".join(map(str, t["layers"].iloc[0])) for t in answered))
            ),
            "strength": " / ".join(filter(None, (t["strength"].iloc[0] for t in answered))),
            "status": "ok",
            "reason": "",
        }

    def _answers(self, rows: pd.DataFrame) -> dict[str, Any]:
        """Return the cells about the unsteered answers and, if there are any, the steered ones."""
        before = answer_cells(rows["before"], rows["answer_before"])
        cells = {f"baseline_{name}": value for name, value in before.items()}
        if self.answered:
            cells |= answer_cells(rows["after"], rows["answer_after"])
        return cells | guessing_cells(rows["gold"], rows["n_options"])

    def _warnings(self, *, steered: bool) -> list[str]:
        """Return why the row shows no effect, with the seed if there are several."""
        found: list[str] = []
        suggested = False
        for of, table in self.answered.items():
            concerns = baseline_concerns(table)
            suggested |= bool(concerns)
            if steered:
                concerns += steered_concerns(table)
            whole = self.whole[self.whole["seed"] == of]
            if lost := int((whole["status"] == "not_finite").sum()):
                concerns.append(
                    f"{lost} of {len(whole)} answers are lost, their logits were not finite"
                )
            found += [f"seed {of}: {text}" if self.several else text for text in concerns]
        return found + ([self.suggestion] if suggested and self.suggestion else [])

    def _reasons(self) -> list[str]:
        """Return why examples or whole seeds have no answer, and the notes on other answers."""
        left_out = self.whole["seed"].isin(self.without)
        noted = self.whole.loc[~left_out, "reason"].replace("", None)
        reasons = [f"{n} x {reason}" for reason, n in noted.value_counts().items()]
        for of in self.without:
            why = dict.fromkeys(self.whole.loc[self.whole["seed"] == of, "reason"])
            reasons.append(f"undefined under seed {of}: {'; '.join(why)}")
        return reasons

    def _levels(self) -> dict[str, Any]:
        """Return the cells on accuracy."""
        accuracies = self._accuracies()
        everyone = np.ones_like(self.after)
        accuracy = self._share(self.after, everyone)
        # An example that was not steered keeps its unsteered answer; a lost answer is no success.
        kept = self.whole["success_after"].where(
            self.whole["status"] != "undefined", self.whole["success_before"]
        )
        overall = kept.eq(True).groupby(self.whole["seed"]).mean().mean()
        return {
            "accuracy": accuracies[:, 1].mean(),
            "accuracy_low": accuracy.low,
            "accuracy_high": accuracy.high,
            "accuracy_std": accuracies[:, 1].std(ddof=1) if self.several else None,
            "baseline_accuracy": accuracies[:, 0].mean(),
            "accuracy_all": float(overall),
        }

    def _sizes(self) -> dict[str, Any]:
        """Return the cells on how much is added and through how many features."""
        norm = self.rows["norm"].to_numpy(dtype=float)
        size = UNDEFINED
        if np.isfinite(norm).all():
            size = self._ratio(norm, np.ones_like(norm))
        return {
            "norm_mean": size.mean,
            "norm_low": size.low,
            "norm_high": size.high,
            "l0_mean": self.rows["n_features"].to_numpy(dtype=float).mean(),
        }

    def _changes(self, reasons: str) -> dict[str, Any]:
        """Return the cells on differences from the unsteered answers."""
        before, after = self.before, self.after
        accuracies = self._accuracies()
        differences = accuracies[:, 1] - accuracies[:, 0]
        helped = self._summed(after.astype(int) - before, np.ones_like(after))
        change = change_interval(*helped, **self.level)
        changes = success_changes(before, after)
        ser = self._share(before & ~after, before != after)
        if changes.n_changed == 0:
            nothing = "ser undefined: no answer changed its success"
            reasons = "; ".join(filter(None, [reasons, nothing]))
        return {
            "change": differences.mean(),
            "change_low": change.low,
            "change_high": change.high,
            "change_std": differences.std(ddof=1) if self.several else None,
            "negative": changes.negative,
            "positive": changes.positive,
            "ser": changes.side_effect_ratio,
            "ser_low": ser.low,
            "ser_high": ser.high,
            "mcnemar_p": sign_test(helped[0].to_numpy()),
            "reason": reasons,
        }

    def _accuracies(self) -> np.ndarray:
        """Return the accuracies before and after, (seeds, 2)."""
        sides = ["success_before", "success_after"]
        return np.array([table[sides].astype(bool).mean() for table in self.answered.values()])

    def _summed(self, counted: np.ndarray, of: np.ndarray) -> tuple[pd.Series, pd.Series]:
        """Return the sums of each example over seeds, since seeds share examples."""
        sums = pd.DataFrame({"counted": counted, "of": of}).astype(float)
        sums = sums.groupby(self.rows["example_id"], sort=False).sum()
        return sums["counted"], sums["of"]

    def _ratio(self, counted: np.ndarray, of: np.ndarray) -> Interval:
        return ratio_interval(*self._summed(counted, of), **self.level)

    def _share(self, counted: np.ndarray, of: np.ndarray) -> Interval:
        return share_interval(*self._summed(counted, of), **self.level)


# Checks of both sides: can a change of the accuracy be an effect of steering? It cannot if the
# unsteered model does not answer, or guesses. Steering then repairs the form of an answer, or moves
# all answers to one letter that is sometimes right.
#: Largest share of answers that may be empty or unreadable, on either side.
MAX_MISSING = 0.1
#: Largest share of answers that may be the same letter, unless the golds have it as often.
MAX_SAME = 0.9
#: From so many repaired answers on, all of them the same letter, a bias to that letter is likely.
MANY_REPAIRED = 5


def answer_cells(texts: pd.Series, answers: pd.Series) -> dict[str, Any]:
    """Return counts of missing answers and the most frequent answer of one side.

    Args:
        texts: the completions.
        answers: what the judge read from them; None where it read nothing.

    Returns:
        ``n_empty``, texts without a word; ``n_unreadable``, texts with a word but no answer;
        ``top_answer``, the most frequent answer (of several, the first in the alphabet), and
        ``top_answer_share``, its share of all texts; both None without any answer.
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
    """Return the accuracy of guessing: ``chance``, and ``constant_accuracy`` of the best answer.

    ``chance`` is None for tasks without options, such as numbers and free text. So is
    ``constant_accuracy``, except where some requests should be refused and others answered: there
    a model that always does the same is right for a share of them.

    Args:
        golds: the right answers.
        n_options: number of options of each example; null where it has none.
    """
    if golds.empty:
        return {"chance": None, "constant_accuracy": None}
    if n_options.isna().any():
        both = set(golds) == {REFUSE, COMPLY}
        constant = float(golds.value_counts(normalize=True).max()) if both else None
        return {"chance": None, "constant_accuracy": constant}
    return {
        "chance": float((1 / n_options.astype(float)).mean()),
        "constant_accuracy": float(golds.value_counts(normalize=True).max()),
    }


def baseline_concerns(pairs: pd.DataFrame) -> list[str]:
    """Return why the unsteered answers of one seed are no baseline; empty if they are one.

    Args:
        pairs: rows of :func:`paired` that have an answer.
    """
    found = _missing("unsteered", answer_cells(pairs["before"], pairs["answer_before"]), len(pairs))
    guessing = guessing_cells(pairs["gold"], pairs["n_options"])
    if guessing["constant_accuracy"] is None:
        return found
    right, n = int(pairs["success_before"].astype(bool).sum()), len(pairs)
    name, least = "guessing", guessing["chance"]
    if least is None or guessing["constant_accuracy"] >= least:
        answer, least = pairs["gold"].mode().iloc[0], guessing["constant_accuracy"]
        name = f"always answering {answer!r}"
    p_value = binomtest(right, n, least, alternative="greater").pvalue
    if p_value >= LEVEL:
        found.append(
            f"the unsteered accuracy ({right / n:.3f} of {n}) is not shown to be better than "
            f"{name} ({least:.3f}, p = {p_value:.2g})"
        )
    return found


def steered_concerns(pairs: pd.DataFrame) -> list[str]:
    """Return why the steered answers of one seed show no effect on the task."""
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
