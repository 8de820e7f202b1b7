"""Answers before and after steering, paired by example."""

import pandas as pd

from steering_core.errors import DataError


def paired(baseline: pd.DataFrame, answers: pd.DataFrame) -> pd.DataFrame:
    """Return ``example_id, prompt, gold, n_options, before, after, answer_before, answer_after,
    success_before, success_after, status, reason, layers, strength, norm, n_features``; the last
    six are of the steered side.

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
            "n_options": left["n_options"],
            "before": left["text"],
            "after": right["text"],
            "answer_before": left["answer"],
            "answer_after": right["answer"],
            "success_before": left["success"],
            "success_after": right["success"],
            "status": right["status"],
            "reason": right["reason"],
            "layers": right["layers"],
            "strength": right["strength"],
            "norm": right["norm"],
            "n_features": right["n_features"],
        }
    ).reset_index()
