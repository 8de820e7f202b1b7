"""Answer a split with or without steering, and judge the answers."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from jaxtyping import Float, Int

from steering_core.corrsteer.decoding import Around, Decoding, decode
from steering_core.corrsteer.plan import Plan
from steering_core.corrsteer.run import Run
from steering_core.corrsteer.strategy import Choice
from steering_core.corrsteer.tasks import Task
from steering_core.errors import DataError
from steering_core.generation.generate import require_finite
from steering_core.generation.steering import steer_sites
from steering_core.methods.solutions import NOT_FINITE
from steering_core.models.language_model import LanguageModel, dtype_name
from steering_core.models.site import Site
from steering_core.models.tokens import TokenBatch
from steering_core.progress import progress
from steering_core.storage.parquet import write_parquet

#: A vector for all rows (d_model,) or one for each row (n, d_model), at a site.
Intervention = tuple[Site, Float[np.ndarray, "... d_model"]]

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
    interventions: Sequence[Intervention] = (),
    around: Around | None = None,
    n_features: Int[np.ndarray, " n"] | int | None = None,
    reasoned: bool = False,
) -> pd.DataFrame:
    """Return :data:`SCHEMA` for the rows of one split, in their order.

    Every vector is added at the last position of every forward pass, all layers in one pass;
    ``around`` puts another intervention around every batch instead. ``n_features`` says how many
    features they go through, of each row or of all; None if none.

    Where the logits of a step are NaN or infinite, as a vector makes them that is too long for
    float16, a row has no text and no success. Its status is ``not_finite``, and its reason names
    layers and dtype.

    Raises:
        DataError: if a vector is not finite or of another width, or prompts do not fit.
    """
    for site, vectors in interventions:
        if vectors.shape[-1] != lm.shape.d_model:
            raise DataError(
                f"the steering vector at {site.hook_name} has {vectors.shape[-1]} dimensions, the "
                f"model {lm.shape.d_model}: its features are of another model."
            )
        if not np.isfinite(vectors).all():
            raise DataError(f"the steering vector at {site.hook_name} is not finite.")

    def steer(batch: TokenBatch, chosen: list[int]) -> AbstractContextManager:
        steered = []
        for site, vectors in interventions:
            mine = vectors[chosen] if vectors.ndim == 2 else vectors[None].repeat(len(chosen), 0)
            steered.append((site, torch.tensor(mine)))
        return steer_sites(lm, steered, batch)

    texts: list[str | None] = [None] * len(rows)
    for chosen, made in progress(decode(lm, rows, how, around or steer), f"answering {task.name}"):
        for position, text in zip(chosen, made, strict=True):
            texts[position] = text
    layers = sorted({site.layer for site, _ in interventions})
    answers = judged(rows, texts, task, classifier, reasoned=reasoned)
    lost = (answers["status"] == NOT_FINITE).to_numpy()
    where = f" at layers {' '.join(map(str, layers))}" if layers else ""
    return with_note(
        answers, np.where(lost, f"logits NaN or infinite{where} in {dtype_name(lm)}", "")
    ).assign(
        layers=[layers] * len(rows),
        strength="",
        norm=np.sqrt(
            sum((_norms(v, len(rows)) ** 2 for _, v in interventions), np.zeros(len(rows)))
        ),
        n_features=n_features,
    )[SCHEMA.names]


def _norms(vectors: Float[np.ndarray, "... d_model"], n: int) -> Float[np.ndarray, " n"]:
    return np.broadcast_to(np.linalg.norm(vectors.astype(np.float64), axis=-1), n)


def answer_choice(
    run: Run, rows: pd.DataFrame, plan: Plan | None, choice: Choice | None
) -> pd.DataFrame:
    """Answer under the chosen layers of a plan; without a plan, unsteered.

    A choice without layers gives a table that is undefined, with the reason. Layers that have no
    vector are named, with the reason, in that of every row.

    Raises:
        ModelError: if logits are NaN or infinite without steering.
    """
    strength, n_features, note = "", 0, ""
    if plan is None or choice is None:
        interventions = []
    elif not choice.layers:
        return undefined(rows, choice.reason)
    else:
        interventions = layer_interventions(plan.vectors, plan.sites, choice.layers)
        strength, n_features = f"scale {plan.scale:g}", plan.n_features(choice.layers)
        note = plan.gaps
    answers = answer(
        run.lm,
        rows,
        run.task,
        run.how,
        run.classifier,
        interventions=interventions,
        n_features=n_features,
        reasoned=run.reasoned,
    )
    if not interventions:
        require_finite(run.lm, answers["text"].tolist())
    return with_note(answers, note).assign(strength=strength)


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


def layer_interventions(
    vectors: Mapping[int, Float[np.ndarray, " d_model"]],
    sites: Mapping[int, Site],
    layers: Sequence[int],
) -> list[Intervention]:
    """Return the vectors of ``layers`` at their sites."""
    return [(sites[layer], vectors[layer]) for layer in layers]


def write_answers(path: str | Path, answers: pd.DataFrame) -> None:
    """Write the table as Parquet."""
    write_parquet(path, answers, SCHEMA)
