"""The judge's verdict on a text, as a reader is shown it."""

from collections.abc import Mapping
from typing import Any

import pandas as pd


def score_label(classifier: Mapping[str, Any] | None) -> str:
    """Say what the number is and who gave it, for the ``classifier`` section of a task."""
    if classifier is None:
        return "P(target), evaluation probe"
    if classifier["lexicon"] is not None:
        return "target words (share), lexicon"
    return "P(target), classifier"


def target_scores(scores: pd.Series, target_class: int) -> pd.Series:
    """Return scores for the target class from those for class 1, both in [0, 1]; NaN stays."""
    return scores if target_class == 1 else 1 - scores
