"""The table of generated texts: a row per (strength, prompt)."""

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Int
from transformers import PreTrainedTokenizerBase

from steering_core.generation.adaptive import AdaptiveSolver
from steering_core.generation.generate import Continuations, Sampling, continuations
from steering_core.generation.plan import plan_for
from steering_core.generation.steering import Positions
from steering_core.methods.interventions import Interventions
from steering_core.methods.solutions import NOT_FINITE, solved
from steering_core.models.language_model import LanguageModel, dtype_name
from steering_core.models.site import Site
from steering_core.models.tokens import tokenize
from steering_core.progress import counter
from steering_core.storage.parquet import write_parquet

log = logging.getLogger(__name__)

SCHEMA = pa.schema(
    [
        pa.field("method", pa.string()),
        pa.field("strength_index", pa.int32()),
        pa.field("strength_name", pa.string()),
        pa.field("strength", pa.float64()),
        pa.field("example_id", pa.string()),
        pa.field("status", pa.string()),
        pa.field("prompt", pa.string()),
        pa.field("prompt_tokens", pa.list_(pa.int32())),
        # Null without a solution, or where the logits were not finite.
        pa.field("new_tokens", pa.list_(pa.int32())),
        pa.field("text", pa.string()),  # the completion alone; likewise
        # Of a program solved anew at every position, else null: positions that were to be
        # steered, and those of them that have no solution, where nothing was added.
        pa.field("steered_positions", pa.int32()),
        pa.field("unsolved_positions", pa.int32()),
    ]
)
_OF_ROWS = ("method", "strength_index", "strength_name", "strength", "example_id", "status")
_COUNTS = ("steered_positions", "unsolved_positions")
_OF_TEXTS = ("new_tokens", "text", *_COUNTS)


def generate_method(
    lm: LanguageModel,
    prompts: pd.DataFrame,
    interventions: Interventions,
    site: Site,
    sampling: Sampling,
    *,
    positions: Positions,
    max_tokens: int,
    batch_size: int,
    solver: AdaptiveSolver | None = None,
) -> pd.DataFrame:
    """Continue every prompt at every strength of a method, all strengths in the same batches.

    A prompt whose program has no solution (at its last token, if it is solved at every position)
    is not continued: its text is missing and its status says why. Where steering made the logits
    NaN or infinite, as a vector does that is too long for float16, the text is missing and the
    status is ``not_finite``; the log names the strengths.

    Args:
        lm: the model.
        prompts: columns ``example_id`` and ``text``.
        interventions: of the method.
        site: where to steer.
        sampling: how tokens are drawn.
        positions: which prompt positions are steered besides every new token.
        max_tokens: at which prompts are cut.
        batch_size: prompts at a time, each at every strength.
        solver: of an adaptive method.

    Returns:
        The columns of :data:`SCHEMA`.

    Raises:
        ModelError: if logits are NaN or infinite without steering.

    """
    texts = prompts["text"].tolist()
    tokens = tokenize(lm.tokenizer, texts, prepend_bos=site.prepend_bos, max_tokens=max_tokens)
    points = interventions.points()
    ids = prompts["example_id"].tolist()
    rows = pd.concat([interventions.at(index, ids) for index in points], ignore_index=True)
    table = rows[[*_OF_ROWS]].assign(prompt=texts * len(points), prompt_tokens=tokens * len(points))
    has = np.flatnonzero(solved(rows))
    plan, made = None, None
    if len(has):
        chosen = rows.iloc[has]
        plan = plan_for(solver, interventions, chosen)
        vectors = interventions.vectors(chosen) if plan is None else None
        with counter(len(has), f"generating with {interventions.method}") as tick:
            made = continuations(
                lm,
                table["prompt_tokens"].iloc[has].tolist(),
                chosen["example_id"].tolist(),
                sampling,
                site=site,
                vectors=vectors if vectors is not None and np.any(vectors) else None,
                adaptive=plan,
                positions=positions,
                batch_size=batch_size * len(points),
                tick=tick,
            )
    table = _with_texts(table, has, made, lm.tokenizer, counted=plan is not None)
    _warn_of_lost(table, site, lm)
    return table


def _with_texts(
    table: pd.DataFrame,
    has: Int[np.ndarray, " k"],
    made: Continuations | None,
    tokenizer: PreTrainedTokenizerBase,
    *,
    counted: bool,
) -> pd.DataFrame:
    """Return the table with the texts of its rows ``has``, and if ``counted`` their positions."""
    columns: dict[str, list] = {name: [None] * len(table) for name in _OF_TEXTS}
    status = table["status"].tolist()
    for i, new in zip(has, made.tokens if made else [], strict=True):
        if new is None:
            status[i] = NOT_FINITE
            continue
        columns["new_tokens"][i] = new
        columns["text"][i] = tokenizer.decode(new, skip_special_tokens=True)
    if counted and made is not None:
        for i, steered, unsolved in zip(has, made.steered, made.unsolved, strict=True):
            columns["steered_positions"][i] = int(steered)
            columns["unsolved_positions"][i] = int(unsolved)
    counts = {name: pd.array(columns.pop(name), dtype="Int32") for name in _COUNTS}
    return table.assign(**columns, **counts, status=status)[SCHEMA.names]


def _warn_of_lost(table: pd.DataFrame, site: Site, lm: LanguageModel) -> None:
    """Log at which strengths texts were lost."""
    lost = table[table["status"] == NOT_FINITE]
    for (name, strength), rows in lost.groupby(["strength_name", "strength"], dropna=False):
        log.warning(
            "%s, %s %g: %d prompts have no text, as steering at %s made the logits NaN or infinite "
            "in %s: take a smaller strength, or bfloat16 or float32 as dtype.",
            rows["method"].iloc[0], name, strength, len(rows), site.hook_name, dtype_name(lm),
        )  # fmt: skip


def write_generations(generations: pd.DataFrame, path: str | Path) -> None:
    """Write the table as Parquet."""
    write_parquet(path, generations, SCHEMA)
