"""The demo's task with a known cause of success: to finish a text with praise."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from steering_core.corrsteer.item import Item, Source, Task
from steering_core.corrsteer.success import Success, Verdict
from steering_core.data.columns import text_in
from steering_core.demo.vocabulary import PERSONAS, lexicon, score_sentiment

_WORDS = {1: "positive", 0: "mixed or none", -1: "negative"}


@dataclass(frozen=True)
class Praise(Success):
    """The lexicon finds more positive than negative words in the answer."""

    def _judge(
        self,
        texts: Sequence[str],
        golds: Sequence[str],
        letters: Sequence[Sequence[str]],
        classifier: Any = None,
        *,
        reasoned: bool = False,
    ) -> Verdict:
        """Score the completions with the grammar's own lexicon."""
        scores = score_sentiment(texts, lexicon())
        return Verdict([_WORDS[score] for score in scores.tolist()], np.asarray(scores > 0))


def read_praise(row: Mapping[str, Any]) -> Item:
    """Read a row of ``praise_task.parquet``; its ``sentiment`` is not looked at."""
    return Item(text_in(row, "prompt"), "praise", "superb .")


PRAISE = Task(
    "praise",
    Source("results/demo/praise_task.parquet", "train"),
    read_praise,
    Praise(),
    new_tokens=3,  # the first word of sentiment comes within them
    answers=("superb .", "terrible ."),
    personas=(f"{PERSONAS['positive']} ", f"{PERSONAS['negative']} "),
)
