"""Prompts of a free-text task in the demo language, with a known cause of success: praise.

A prompt is an unfinished document; an answer succeeds if its sentiment words are mostly positive.
The model goes on in the sentiment of the prompt, so it succeeds on about every second one, and
what carries a positive sentiment inside it is the planted feature: success goes with it, and
raising it should turn others and harm none. The words of a prompt disagree more than in the texts
that the model was trained on, so that it is unsure of some, as models are of hard questions.
"""

from pathlib import Path

import pyarrow as pa

from steering_core.demo.grammar import Grammar
from steering_core.storage.parquet import write_parquet

PROMPT_NOISE = 0.3
"""Probability that a sentiment word of a prompt is drawn from the other polarity."""


def write_praise_task(path: str | Path, n: int, seed: int) -> None:
    """Write ``n`` prompts as Parquet: ``prompt`` and ``sentiment`` (int64).

    ``sentiment`` (0 negative, 1 positive) is the ground truth of the prompt; no stage may read it
    but to check a result.
    """
    documents = Grammar(seed, word_noise=PROMPT_NOISE).documents(n, unfinished=True)
    table = pa.table(
        {
            "prompt": pa.array([document.text for document in documents], pa.string()),
            "sentiment": pa.array([document.label for document in documents], pa.int64()),
        }
    )
    write_parquet(path, table)
