"""From answers to the table of results and the table of what changed."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from steering_core.corrsteer.arms import UNSTEERED
from steering_core.errors import DataError
from steering_core.metrics.agreement import SuccessChanges, success_changes
from steering_core.metrics.bootstrap import mean_interval

COLUMNS = [
    "experiment",
    "method",
    "seed",  # of the run; "all" sums up the runs
    "n",
    "n_seeds",
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "accuracy_std",  # over seeds
    "baseline_accuracy",
    "negative",
    "positive",
    "ser",
    "ser_low",
    "ser_high",
    "mcnemar_p",
    "layers",
    "status",
    "reason",
]


def paired(baseline: pd.DataFrame, answers: pd.DataFrame) -> pd.DataFrame:
    """Return ``example_id, prompt, gold, before, after, success_before, success_after``.

    Rows are in the baseline's order.

    Raises:
        DataError: if the two sides are not of the same examples with the same prompts.
    """
    for name, side in (("before", baseline), ("after", answers)):
        twice = side["example_id"][side["example_id"].duplicated()]
        if len(twice):
            raise DataError(f"example {twice.iloc[0]} occurs more than once {name} steering.")
    left = baseline.set_index("example_id")
    right = answers.set_index("example_id")
    if set(left.index) != set(right.index):
        only = sorted(set(left.index) ^ set(right.index))
        raise DataError(
            f"the baseline is not of the same examples: {len(only)} are on one side only, such "
            f"as {only[0]}. Run both on the same split."
        )
    right = right.loc[left.index]
    if not (left["prompt"] == right["prompt"]).all():
        raise DataError("the baseline was asked with other prompts: run it with the same options.")
    return pd.DataFrame(
        {
            "prompt": left["prompt"],
            "gold": left["gold"],
            "before": left["text"],
            "after": right["text"],
            "success_before": left["success"],
            "success_after": right["success"],
        }
    ).reset_index()


def result_table(
    experiment: str,
    runs: Mapping[int, Mapping[str, pd.DataFrame]],
    *,
    n_resamples: int,
) -> pd.DataFrame:
    """Return :data:`COLUMNS`: a row per method and seed, and one over all seeds.

    Over seeds the accuracy is the mean of the seeds' accuracies and its interval resamples all
    examples; counts of changes are summed. A method that is undefined under some seed is
    undefined over all, with the reason; its numbers stay empty.

    Args:
        experiment: name for the table.
        runs: for each seed, the answers of each method; ``unsteered`` is the baseline.
        n_resamples: of the bootstrap.

    Raises:
        DataError: if a seed has no baseline, or it does not pair up.
    """
    rows = []
    methods = list(next(iter(runs.values())))
    for method in methods:
        tables = []
        for seed, answers in runs.items():
            if UNSTEERED not in answers:
                raise DataError(f"seed {seed} has no unsteered answers to compare with.")
            tables.append(paired(answers[UNSTEERED], answers[method]).assign(seed=seed))
            state = answers[method].iloc[0]
            rows.append(
                _row(experiment, method, str(seed), [tables[-1]], [state], n_resamples, seed)
            )
        states = [answers[method].iloc[0] for answers in runs.values()]
        rows.append(_row(experiment, method, "all", tables, states, n_resamples, 0))
    return pd.DataFrame(rows, columns=COLUMNS)


def _row(
    experiment: str,
    method: str,
    name: str,
    tables: Sequence[pd.DataFrame],
    states: Sequence[pd.Series],
    n_resamples: int,
    seed: int,
) -> dict[str, Any]:
    before = np.concatenate([t["success_before"].to_numpy(bool) for t in tables])
    row: dict[str, Any] = {
        "experiment": experiment,
        "method": method,
        "seed": name,
        "n": len(before),
        "n_seeds": len(tables),
        "baseline_accuracy": float(np.mean([t["success_before"].mean() for t in tables])),
        "layers": " / ".join(" ".join(map(str, state["layers"])) for state in states),
        "status": "ok",
        "reason": "",
    }
    reasons = [state["reason"] for state in states if state["status"] != "ok"]
    if reasons:
        return {**row, "status": "undefined", "reason": "; ".join(dict.fromkeys(reasons))}
    after = np.concatenate([t["success_after"].to_numpy(bool) for t in tables])
    each = [float(t["success_after"].mean()) for t in tables]
    interval = mean_interval(after, seed=seed, n_resamples=n_resamples)
    row |= {
        "accuracy": float(np.mean(each)),
        "accuracy_low": interval.low,
        "accuracy_high": interval.high,
        "accuracy_std": float(np.std(each, ddof=1)) if len(each) > 1 else None,
    }
    if method == UNSTEERED:
        return row
    changes = _changes(tables, before, after)
    ser = changes.side_effect_interval(seed=seed, n_resamples=n_resamples)
    return row | {
        "negative": changes.negative,
        "positive": changes.positive,
        "ser": changes.side_effect_ratio,
        "ser_low": ser.low,
        "ser_high": ser.high,
        "mcnemar_p": changes.mcnemar_p_value,
        "reason": "" if changes.n_changed else "ser undefined: no answer changed its success",
    }


def _changes(
    tables: Sequence[pd.DataFrame], before: np.ndarray, after: np.ndarray
) -> SuccessChanges:
    ids = [(seed, e) for t in tables for seed, e in zip(t["seed"], t["example_id"], strict=True)]
    return success_changes(before, after, before_ids=ids, after_ids=ids)
