"""What the pairs of one method say: a row of the table of results."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from steering_core.corrsteer.baseline import (
    answer_cells,
    baseline_concerns,
    guessing_cells,
    steered_concerns,
)
from steering_core.statistics.bootstrap import (
    UNDEFINED,
    Interval,
    ratio_interval,
    share_interval,
)
from steering_core.statistics.paired import SuccessChanges, success_changes


class Summary:
    """The pairs of one method under one seed or several.

    Examples without an answer are left out on both sides, but for :meth:`overall`. A seed under
    which no example has an answer is left out, and named in the reason.

    Args:
        pairs: by seed, what :func:`steering_core.corrsteer.pairs.paired` returns.
        n_resamples: of the bootstrap.
        seed: of the bootstrap.
        suggestion: what to try where the unsteered answers are no baseline; may be empty.
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
        """Return the numbers of the row, those of ``changes`` only if there can be any."""
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
        """What the answers are on either side, the steered one only where there is one."""
        before = answer_cells(rows["before"], rows["answer_before"])
        cells = {f"baseline_{name}": value for name, value in before.items()}
        if self.answered:
            cells |= answer_cells(rows["after"], rows["answer_after"])
        return cells | guessing_cells(rows["gold"], rows["n_options"])

    def _warnings(self, *, steered: bool) -> list[str]:
        """Why no effect can be read off the row; those of several seeds name theirs."""
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
        """Why examples have no answer or seeds none at all, and notes on those that have one."""
        left_out = self.whole["seed"].isin(self.without)
        noted = self.whole.loc[~left_out, "reason"].replace("", None)
        reasons = [f"{n} x {reason}" for reason, n in noted.value_counts().items()]
        for of in self.without:
            why = dict.fromkeys(self.whole.loc[self.whole["seed"] == of, "reason"])
            reasons.append(f"undefined under seed {of}: {'; '.join(why)}")
        return reasons

    def _levels(self) -> dict[str, Any]:
        """Accuracies, and the same over all examples."""
        accuracies = self._accuracies()
        everyone = np.ones_like(self.after)
        accuracy = self._share(self.after, everyone)
        # What was not steered keeps its unsteered answer; an answer that was lost is no success.
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
        """How much is added, through how many features."""
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
        """What differs from the unsteered answers."""
        before, after = self.before, self.after
        accuracies = self._accuracies()
        differences = accuracies[:, 1] - accuracies[:, 0]
        change = self._ratio(after.astype(int) - before, np.ones_like(after))
        changes = self._counted()
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
            "mcnemar_p": None if self.several else changes.mcnemar_p_value,
            "reason": reasons,
        }

    def _accuracies(self) -> np.ndarray:
        """(seeds, 2): before and after."""
        sides = ["success_before", "success_after"]
        return np.array([table[sides].astype(bool).mean() for table in self.answered.values()])

    def _counted(self) -> SuccessChanges:
        ids = list(zip(self.rows["seed"], self.rows["example_id"], strict=True))
        return success_changes(self.before, self.after, before_ids=ids, after_ids=ids)

    def _summed(self, counted: np.ndarray, of: np.ndarray) -> tuple[pd.Series, pd.Series]:
        """Sums of each example over seeds: seeds share examples."""
        sums = pd.DataFrame({"counted": counted, "of": of}).astype(float)
        sums = sums.groupby(self.rows["example_id"], sort=False).sum()
        return sums["counted"], sums["of"]

    def _ratio(self, counted: np.ndarray, of: np.ndarray) -> Interval:
        return ratio_interval(*self._summed(counted, of), **self.level)

    def _share(self, counted: np.ndarray, of: np.ndarray) -> Interval:
        return share_interval(*self._summed(counted, of), **self.level)
