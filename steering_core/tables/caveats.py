"""Warnings for the readers of tables and pages, each with what to change."""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from steering_core.config.methods import BASELINE

_PROBE_AS_JUDGE = (
    "texts judged by the evaluation probe, which shares the representation that is steered. It "
    "reads a completion without its prompt, and one such as 'Istanbul.' cannot be judged true or "
    "false by itself"
)
#: Scores in [0, 1] that differ by less than this count as the same.
_SAME_SCORE = 0.01
_BETWEEN = "; "
#: Of a curve that reaches the effect before the first of its points.
INTERPOLATED = (
    "the effect is reached below the weakest strength that was run, so the costs are interpolated "
    "from the unsteered point"
)
#: Ends a warning of all curves of the table ``matched`` where the reported prompts choose.
ON_REPORTED = "so the best curve of each kind is chosen on the reported prompts, which favours it"


def warnings_cell(warnings: Iterable[str]) -> str:
    """Return the cell ``warnings`` of a table's row; :func:`warnings_in` splits it again."""
    return _BETWEEN.join(text.replace(_BETWEEN, ", ") for text in dict.fromkeys(warnings))


def warnings_in(cell: Any) -> list[str]:
    """Return the warnings in a cell that :func:`warnings_cell` made; an empty cell has none."""
    return [] if pd.isna(cell) else [text for text in str(cell).split(_BETWEEN) if text]


def probe_warnings(reports: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a warning for each probe that is no better than chance on validation rows.

    Args:
        reports: of ``probes.json``: for each part ``accuracy``, ``chance``, ``n``, ``at_chance``.

    """
    return [
        f"the {part} probe is no better than chance on validation rows "
        f"(accuracy {report['accuracy']:.2f}, chance {report['chance']:.2f}, n {report['n']}): "
        "see sweep.csv for a better layer (`layer: auto` takes the best), raise rows_per_class, or "
        "choose another label"
        for part, report in reports.items()
        if report["at_chance"]
    ]


def judge_warnings(
    classifier: Mapping[str, Any] | None, judged: pd.DataFrame | None = None
) -> list[str]:
    """Return warnings about judges whose rates say little.

    Args:
        classifier: the ``classifier`` section of the task; None if the evaluation probe judges the
            texts.
        judged: a row per text: ``method``, ``score`` (NaN for a text without a word, 0.5 for a text
            in neither class) and ``judged``; None if the texts are not available.

    """
    found = [] if classifier is not None else [_PROBE_AS_JUDGE]
    if judged is None:
        return found
    scores = judged["score"].dropna()
    scores = scores[scores != 0.5]
    one_side = (scores > 0.5).nunique() == 1
    if len(scores) > 1 and one_side and scores.max() - scores.min() < _SAME_SCORE:
        found.append(
            f"the judge gives every text the same score ({scores.mean():.2f}), so its rates say "
            "nothing: name another classifier"
        )
        return found
    unsteered = judged.loc[judged["method"] == BASELINE, "judged"].dropna()
    if len(unsteered) and unsteered.eq(1).all():
        found.append(
            "the judge puts every unsteered text in the target class, so steering cannot raise "
            "its rate: steer to the other class (target_class), or write other prompts"
        )
    return found
