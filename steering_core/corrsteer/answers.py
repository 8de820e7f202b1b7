"""Decode the answers of a split greedily, with or without steering, and judge them.

A :class:`Session` holds the loaded model and all that answering a task takes. Every stage of an
experiment opens it alike, so that selection, validation and evaluation decode in the same way.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from jaxtyping import Float, Int
from transformers import LogitsProcessor, PreTrainedTokenizerBase

from steering_core.corrsteer.tasks import Task, find_task, follows
from steering_core.errors import ModelError
from steering_core.generation.decode import Decoded, Observer, decode
from steering_core.generation.intervention import Intervention
from steering_core.methods.solutions import NOT_FINITE
from steering_core.metrics.judges import Verdict
from steering_core.models.language_model import LanguageModel, dtype_name
from steering_core.models.residual_stream import last_token_residuals
from steering_core.models.resources import fetched_model, run_sites, wants_bos
from steering_core.models.site import Site
from steering_core.models.tokens import tokenize
from steering_core.progress import progress
from steering_core.storage.parquet import write_parquet

if TYPE_CHECKING:
    from steering_core.config.corrsteer_schema import CorrSteerSettings


#: Rows that are grouped by length together; larger means less padding.
BLOCK = 256
#: Padded tokens of a batch that is only read.
BATCH_TOKENS = 2048


@dataclass(frozen=True)
class Decoding:
    """How answers are generated; one object serves selection, pruning and evaluation.

    With ``chat_template`` the prompts hold the control tokens of the model's chat template.
    ``batch_rows`` is rounded up to a multiple of 8 on a CPU (``generation.batching``).
    """

    new_tokens: int
    batch_rows: int = 8
    restrict_options: bool = False
    prepend_bos: bool = True
    chat_template: bool = False


def complete(
    lm: LanguageModel,
    rows: pd.DataFrame,
    how: Decoding,
    *,
    intervention: Intervention | None = None,
    observer: Observer | None = None,
    cuts: Sequence[int] = (),
) -> Iterator[tuple[Decoded, list[str | None]]]:
    """Yield what was decoded, and the texts of it, batch after batch; every row once.

    A text is None if the logits of one of its steps were NaN or infinite. Rows are taken ``BLOCK``
    at a time, fewer up to a cut, and grouped by length within those.

    Args:
        lm: the model.
        rows: columns ``prompt`` and ``letters``.
        how: options of decoding.
        intervention: on the rows; None leaves the model alone.
        observer: reads each batch.
        cuts: numbers of rows; the first so many are all done before any other is begun.

    Raises:
        DataError: as :func:`steering_core.generation.decode.decode`.
        ModelError: likewise, or if options are to be restricted and a letter is not one token.
    """
    tokenizer = lm.tokenizer
    letters = rows["letters"].tolist()

    def restricted(chosen: list[int], prompt_length: int) -> list[LogitsProcessor]:
        return [OnlyOptions([option_tokens(tokenizer, letters[i]) for i in chosen], prompt_length)]

    prompts = tokenize(
        tokenizer,
        rows["prompt"].tolist(),
        prepend_bos=how.prepend_bos,
        control_tokens=how.chat_template,
    )
    for decoded in decode(
        lm,
        prompts,
        how.new_tokens,
        prepend_bos=how.prepend_bos,
        batch_rows=how.batch_rows,
        intervention=intervention,
        processors=restricted if how.restrict_options else None,
        observer=observer,
        block_rows=BLOCK,
        cuts=cuts,
    ):
        written = [row or [] for row in decoded.tokens]
        texts = tokenizer.batch_decode(written, skip_special_tokens=True)
        lost = [row is None for row in decoded.tokens]
        yield decoded, [None if gone else text for gone, text in zip(lost, texts, strict=True)]


class OnlyOptions(LogitsProcessor):
    """Lets only the given tokens be the first one of each row's answer."""

    def __init__(self, tokens: Sequence[Sequence[int]], prompt_length: int):
        self.tokens = tokens
        self.prompt_length = prompt_length

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return scores with all other tokens at minus infinity, at the first step."""
        if input_ids.shape[1] > self.prompt_length:
            return scores
        only = torch.full_like(scores, -torch.inf)
        for row, tokens in enumerate(self.tokens):
            only[row, tokens] = scores[row, tokens]
        return only


def option_tokens(tokenizer: PreTrainedTokenizerBase, letters: Sequence[str]) -> list[int]:
    """Return the tokens that say a letter, with and without a space before it.

    Raises:
        ModelError: if there are no letters, or a letter is no single token.
    """
    if not len(letters):
        raise ModelError("restrict_options: this task has no options; use it for select tasks.")
    found = []
    for letter in letters:
        forms = tokenizer([letter, f" {letter}"], add_special_tokens=False)["input_ids"]
        single = {ids[0] for ids in forms if len(ids) == 1} - {tokenizer.unk_token_id}
        if not single:
            raise ModelError(
                f"restrict_options: {letter!r} is not one token of this model: set "
                "restrict_options to false."
            )
        found += sorted(single)
    return found


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


# ---------------------------------------------------------------------- a loaded model that answers


@dataclass(frozen=True)
class Session:
    """A loaded model with everything it takes to answer and judge.

    Attributes:
        lm: the model.
        task: says what the prompts are and what success is.
        how: options of decoding.
        classifier: what the task's success function loaded; None if it needs none.
        reasoned: whether the prompts ask for reasoning.
        sites: site of each layer.
    """

    lm: LanguageModel
    task: Task
    how: Decoding
    classifier: Any
    reasoned: bool
    sites: dict[int, Site]

    def answer(
        self,
        rows: pd.DataFrame,
        intervention: Intervention | None = None,
        n_features: Int[np.ndarray, " n"] | int | None = None,
    ) -> pd.DataFrame:
        """Answer and judge ``rows``: :func:`answer`."""
        return answer(
            self.lm,
            rows,
            self.task,
            self.how,
            self.classifier,
            intervention=intervention,
            n_features=n_features,
            reasoned=self.reasoned,
        )

    def complete(
        self, rows: pd.DataFrame, *, observer: Observer | None = None, cuts: Sequence[int] = ()
    ) -> Iterator[tuple[Decoded, list[str | None]]]:
        """Complete ``rows`` unsteered: :func:`complete`."""
        return complete(self.lm, rows, self.how, observer=observer, cuts=cuts)

    def judge(
        self, texts: Sequence[str], golds: Sequence[str], letters: Sequence[Sequence[str]]
    ) -> Verdict:
        """Judge texts by the task's success function."""
        return self.task.success.judge(
            texts, golds, letters, self.classifier, reasoned=self.reasoned
        )

    def residuals(self, texts: list[str], site: Site) -> Float[np.ndarray, "n d_model"]:
        """Return the last-token residuals of ``texts``.

        Raises:
            ModelError: if a residual is NaN or infinite.
        """
        if not texts:
            return np.zeros((0, self.lm.shape.d_model))
        return last_token_residuals(
            self.lm,
            texts,
            site,
            max_tokens=self.lm.shape.context,
            batch_tokens=BATCH_TOKENS,
            control_tokens=self.how.chat_template,
        )


def open_session(
    model: dict[str, Any],
    entry: dict[str, Any],
    settings: "CorrSteerSettings",
    resources: dict[str, Any],
    *,
    batch_rows: int | None = None,
) -> Session:
    """Load model and classifier at the fetched revisions.

    Raises:
        ModelError: if something cannot be loaded.
    """
    task = find_task(entry["task"])
    sites = run_sites(resources, published=settings.published_site)
    classifier = None
    if task.success.classifier is not None:
        if resources["classifier"] is None:
            raise ModelError(f"{task.success.classifier} was not fetched: run the fetch rule.")
        classifier = task.success.load(resources["classifier"]["revision"], settings.device)
    return Session(
        lm=fetched_model(model, resources, settings.device),
        task=task,
        how=Decoding(
            new_tokens=settings.new_tokens or task.length(reasoned=settings.chain_of_thought),
            batch_rows=batch_rows or settings.batch_rows,
            restrict_options=follows("restrict_options", task, asked=settings.restrict_options),
            prepend_bos=wants_bos(resources),
            chat_template=settings.chat_template,
        ),
        classifier=classifier,
        reasoned=settings.chain_of_thought,
        sites=sites,
    )
