"""From answers to the table of results."""

from collections.abc import Mapping

import pandas as pd

from steering_core.corrsteer.arms import UNSTEERED
from steering_core.corrsteer.pairs import paired
from steering_core.corrsteer.summary import Summary
from steering_core.errors import DataError

_NO_BASELINE = "the unsteered answers are no baseline"
COLUMNS = [
    "experiment",
    "method",
    "seed",  # of the run; "all" sums up the runs
    "n",
    "n_missing",  # without an answer, such as an infeasible program
    "n_empty",  # answers without a word
    "n_unreadable",  # answers with a word that say nothing of the kind that is asked for
    "baseline_n_empty",
    "baseline_n_unreadable",
    "n_seeds",
    "seeds",  # that the row is of
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "accuracy_std",  # over seeds
    "baseline_accuracy",
    "chance",  # accuracy of guessing, where there are options
    "constant_accuracy",  # of the letter that is right most often
    "accuracy_all",  # with the unsteered answer where there is none
    "change",  # of the accuracy, paired
    "change_low",
    "change_high",
    "change_std",  # over seeds
    "top_answer",  # the most frequent one
    "top_answer_share",
    "baseline_top_answer",
    "baseline_top_answer_share",
    "negative",
    "positive",
    "ser",
    "ser_low",
    "ser_high",
    "mcnemar_p",  # of one seed
    "layers",
    "strength",
    "norm_mean",
    "norm_low",
    "norm_high",
    "l0_mean",
    "status",
    "reason",
    "warnings",  # why no effect can be read off the row
]


def warnings_of(table: pd.DataFrame) -> list[str]:
    """Return each warning of some rows once, with the methods that it is about.

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
    """Return :data:`COLUMNS`: a row per method and seed, and one over all seeds.

    Over seeds the accuracy is the mean of the seeds' accuracies and counts of changes are summed.
    Seeds share examples, so intervals resample examples, each with its answers under all seeds,
    and McNemar's test, which wants independent pairs, is of single seeds alone. Examples that a
    method has no answer to are left out on both sides and counted. A seed under
    which a method has no answer is left out over all and named in the reason; under no seed but
    such, its numbers stay empty.

    Args:
        experiment: name for the table.
        runs: for each seed, the answers of each method; ``unsteered`` is the baseline.
        n_resamples: of the bootstrap.
        suggestion: what to try where the unsteered answers are no baseline; may be empty.

    Raises:
        DataError: if a seed has no baseline, or it does not pair up.
    """
    rows = []
    for method in next(iter(runs.values())):
        tables = {}
        for seed, answers in runs.items():
            if UNSTEERED not in answers:
                raise DataError(f"seed {seed} has no unsteered answers to compare with.")
            tables[seed] = paired(answers[UNSTEERED], answers[method])
        parts = {str(seed): ({seed: table}, seed) for seed, table in tables.items()}
        for name, (pairs, seed) in {**parts, "all": (tables, 0)}.items():
            summary = Summary(pairs, n_resamples=n_resamples, seed=seed, suggestion=suggestion)
            row = summary.row(changes=method != UNSTEERED)
            rows.append({"method": method, "seed": name, **row})
    return pd.DataFrame(rows, columns=COLUMNS).assign(experiment=experiment)
