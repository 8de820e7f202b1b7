"""Answer a split with or without steering, and judge the answers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Int

from steering_core.corrsteer.decoding import Decoding, complete
from steering_core.corrsteer.tasks import Task
from steering_core.generation.intervention import Intervention
from steering_core.methods.solutions import NOT_FINITE
from steering_core.models.language_model import LanguageModel, dtype_name
from steering_core.progress import progress
from steering_core.storage.parquet import write_parquet

SCHEMA = pa.schema(
    [
        pa.field("example_id", pa.string(), nullable=False),
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("gold", pa.string(), nullable=False),
        pa.field("n_options", pa.int32()),  # null where the answer is no option
        pa.field("text", pa.string()),  # the completion alone; null where undefined
        pa.field("answer", pa.string()),  # what was extracted from it; null if there is no answer
        pa.field("success", pa.bool_()),
        pa.field("status", pa.string(), nullable=False),  # ok, undefined or not_finite
        pa.field("reason", pa.string(), nullable=False),
        pa.field("layers", pa.list_(pa.int32()), nullable=False),
        pa.field("strength", pa.string(), nullable=False),  # what was chosen or set; may be empty
        # What is added at a position, over all layers together: the norm, and the features it
        # goes through. Null where nothing of the kind is added.
        pa.field("norm", pa.float64()),
        pa.field("n_features", pa.int32()),
    ]
)


def answer(
    lm: LanguageModel,
    rows: pd.DataFrame,
    task: Task,
    how: Decoding,
    classifier: Any,
    *,
    intervention: Intervention | None = None,
    n_features: Int[np.ndarray, " n"] | int | None = None,
    reasoned: bool = False,
) -> pd.DataFrame:
    """Return :data:`SCHEMA` for the rows of one split, in their order.

    A vector that is too long for float16 makes logits NaN or infinite. Such a row has no text and
    no success. Its status is ``not_finite``, and its reason names layers and dtype.

    Args:
        lm: the model.
        rows: prompts, gold answers and letters.
        task: judges the answers.
        how: options of decoding.
        classifier: what the task's success function loaded.
        intervention: on the rows; None leaves the model alone.
        n_features: how many features it goes through, for each row or for all; None if it does not
            go through features.
        reasoned: whether the prompts ask for reasoning.

    Raises:
        DataError: if a vector is not finite or of another width, or prompts do not fit.
        ModelError: if logits are NaN or infinite without steering.
    """
    n = len(rows)
    texts: list[str | None] = [None] * n
    unsolved = np.zeros(n, dtype=np.int64)
    batches = complete(lm, rows, how, intervention=intervention)
    for decoded, made in progress(batches, f"answering {task.name}"):
        unsolved[decoded.rows] = decoded.unsolved
        for position, text in zip(decoded.rows, made, strict=True):
            texts[position] = text
    layers, norm = [], 0.0
    if intervention is not None:
        layers, norm = intervention.layers, intervention.norms(n)
    answers = judged(rows, texts, task, classifier, reasoned=reasoned)
    lost = (answers["status"] == NOT_FINITE).to_numpy()
    where = f" at layers {' '.join(map(str, layers))}" if layers else ""
    answers = with_note(
        answers, np.where(lost, f"logits NaN or infinite{where} in {dtype_name(lm)}", "")
    )
    answers = with_note(
        answers, np.where(unsolved > 0, "positions without a solution were left alone", "")
    )
    return answers.assign(layers=[layers] * n, strength="", norm=norm, n_features=n_features)[
        SCHEMA.names
    ]


def judged(
    rows: pd.DataFrame, texts: Sequence[str | None], task: Task, classifier: Any, *, reasoned: bool
) -> pd.DataFrame:
    """Return the rows with their completions, the extracted answers and success.

    A row whose text is None is ``not_finite``, without an answer and success.
    """
    table = _asked(rows).assign(
        text=pd.Series(list(texts), rows.index, dtype=object),
        answer=pd.Series(None, rows.index, dtype=object),
        success=pd.Series(None, rows.index, dtype=object),
        status="ok",
        reason="",
    )
    made = np.array([text is not None for text in texts], dtype=bool)
    some = rows[made]
    verdict = task.success.judge(
        [text for text in texts if text is not None],
        some["gold"].tolist(),
        some["letters"].tolist(),
        classifier,
        reasoned=reasoned,
    )
    if made.all():
        return table.assign(answer=verdict.answer, success=verdict.success)
    table.loc[made, "answer"] = pd.Series(verdict.answer, some.index, dtype=object)
    table.loc[made, "success"] = pd.Series(verdict.success, some.index, dtype=object)
    table.loc[~made, "status"] = NOT_FINITE
    return table


def with_note(answers: pd.DataFrame, note: str | Sequence[str]) -> pd.DataFrame:
    """Return the answers with a note, of all rows or of each, after the reason they have."""
    notes = [note] * len(answers) if isinstance(note, str) else note
    return answers.assign(
        reason=[
            "; ".join(filter(None, both)) for both in zip(answers["reason"], notes, strict=True)
        ]
    )


def _asked(rows: pd.DataFrame) -> pd.DataFrame:
    counts = [len(letters) or None for letters in rows["letters"]]
    return rows[["example_id", "prompt", "gold"]].assign(n_options=pd.array(counts, dtype="Int32"))


def undefined(rows: pd.DataFrame, reason: str) -> pd.DataFrame:
    """Return the rows of an arm that cannot be run, and why."""
    return _asked(rows).assign(
        text=None,
        answer=None,
        success=None,
        status="undefined",
        reason=reason,
        layers=[[] for _ in range(len(rows))],
        strength="",
        norm=None,
        n_features=None,
    )[SCHEMA.names]


def write_answers(path: str | Path, answers: pd.DataFrame) -> None:
    """Write the table as Parquet."""
    write_parquet(path, answers, SCHEMA)
