"""The table of generated texts: a row per (strength, prompt)."""

import logging
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Int
from transformers import PreTrainedTokenizerBase

from steering_core.generation.decode import Decoded, continuations
from steering_core.generation.sampling import Sampling
from steering_core.generation.steered_method import Steered, SteeredPrompt
from steering_core.methods.solutions import NOT_FINITE, solved
from steering_core.models.language_model import LanguageModel, dtype_name
from steering_core.models.site import Site
from steering_core.models.tokens import tokenize
from steering_core.progress import counter

log = logging.getLogger(__name__)

SCHEMA = pa.schema(
    [
        pa.field("method", pa.string()),
        pa.field("strength_index", pa.int32()),
        pa.field("strength_name", pa.string()),
        pa.field("strength", pa.float64()),
        pa.field("example_id", pa.string()),
        pa.field("draw", pa.int32()),  # number of the text of its prompt, from 0
        pa.field("status", pa.string()),
        pa.field("prompt", pa.string()),
        pa.field("prompt_tokens", pa.list_(pa.int32())),  # as the model reads it
        # Of a prompt with a text before it: the prompt alone, as the unsteered model reads it.
        pa.field("plain_tokens", pa.list_(pa.int32())),
        # Null without a solution, or where the logits were not finite.
        pa.field("new_tokens", pa.list_(pa.int32())),
        pa.field("text", pa.string()),  # the completion alone; likewise
        # Of a program solved anew at every position and behind a gate, else null: positions that
        # could be steered, those of them that have no solution, where nothing was added, and those
        # at which something was added.
        pa.field("steered_positions", pa.int32()),
        pa.field("unsolved_positions", pa.int32()),
        pa.field("added_positions", pa.int32()),
    ]
)
_OF_ROWS = ("method", "strength_index", "strength_name", "strength", "example_id", "status")
_COUNTS = ("steered_positions", "unsolved_positions", "added_positions")
_OF_TEXTS = ("new_tokens", "text", *_COUNTS)


def generate_method(
    lm: LanguageModel,
    prompts: pd.DataFrame,
    steered: Steered,
    sampling: Sampling,
    *,
    max_tokens: int,
    batch_size: int,
    draws: int = 1,
    chat_template: bool = False,
) -> pd.DataFrame:
    """Continue every prompt at every strength of a method, all strengths in the same batches.

    A prompt whose program has no solution (at its last token, if it is solved at every position)
    is not continued: its text is missing and its status says why. If steering makes the logits NaN
    or infinite (a vector too long for float16 does), the text is missing and the status is
    ``not_finite``; the log names the strengths.

    Args:
        lm: the model.
        prompts: columns ``example_id`` and ``text``.
        steered: the method.
        sampling: how tokens are drawn.
        max_tokens: at which prompts are cut.
        batch_size: texts at a time, each at every strength.
        draws: texts of each prompt and strength. Their random numbers differ from draw to draw.
            Every method and strength uses the same ones, so differences are paired.
        chat_template: whether a prompt is the user's turn, and the text the assistant's.

    Returns:
        The columns of :data:`SCHEMA`.

    Raises:
        ModelError: if logits are NaN or infinite without steering.

    """
    texts = prompts["text"].tolist()
    how = {"prepend_bos": steered.prepend_bos, "chat_template": chat_template}
    tokens = tokenize(lm.tokenizer, texts, max_tokens=max_tokens, **how)
    plain: list[list[int] | None] = [None] * len(texts)
    if isinstance(steered, SteeredPrompt):
        # It is not cut: what asks for the concept would stay, and the prompt would go.
        longer = [steered.prefix + text for text in texts]
        plain, tokens = tokens, tokenize(lm.tokenizer, longer, **how)
    points = steered.points()
    ids = prompts["example_id"].tolist()
    rows = pd.concat([steered.at(index, ids * draws) for index in points], ignore_index=True)
    repeats = len(points) * draws
    table = rows[[*_OF_ROWS]].assign(
        draw=np.tile(np.repeat(np.arange(draws), len(ids)), len(points)),
        prompt=texts * repeats,
        prompt_tokens=tokens * repeats,
        plain_tokens=plain * repeats,
    )
    names = [_seed_name(*row) for row in zip(table["example_id"], table["draw"], strict=True)]
    has = np.flatnonzero(solved(rows))
    intervention, made = None, None
    if len(has):
        chosen = rows.iloc[has]
        intervention = steered.intervention(chosen)
        with counter(len(has), f"generating with {steered.method}") as tick:
            made = continuations(
                lm,
                table["prompt_tokens"].iloc[has].tolist(),
                [names[i] for i in has],
                sampling,
                prepend_bos=steered.prepend_bos,
                intervention=intervention,
                batch_rows=batch_size * len(points),
                tick=tick,
            )
    counted = intervention is not None and (intervention.is_adaptive or intervention.is_gated)
    table = _with_texts(table, has, made, lm.tokenizer, counted=counted)
    _warn_of_lost(table, steered.sites, lm)
    return table


def _seed_name(example_id: str, draw: int) -> str:
    """Return the name that seeds a text's random numbers: of the first draw, the prompt's."""
    return example_id if draw == 0 else f"{example_id} draw {draw}"


def _with_texts(
    table: pd.DataFrame,
    has: Int[np.ndarray, " k"],
    made: Decoded | None,
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
        for name, counts in zip(_COUNTS, (made.steered, made.unsolved, made.added), strict=True):
            for i, count in zip(has, counts, strict=True):
                columns[name][i] = int(count)
    counts = {name: pd.array(columns.pop(name), dtype="Int32") for name in _COUNTS}
    return table.assign(**columns, **counts, status=status)[SCHEMA.names]


def _warn_of_lost(table: pd.DataFrame, sites: Sequence[Site], lm: LanguageModel) -> None:
    """Log at which strengths texts were lost."""
    lost = table[table["status"] == NOT_FINITE]
    where = ", ".join(site.hook_name for site in sites)
    for (name, strength), rows in lost.groupby(["strength_name", "strength"], dropna=False):
        log.warning(
            "%s, %s %g: %d prompts have no text, as steering at %s made the logits NaN or infinite "
            "in %s: take a smaller strength, or bfloat16 or float32 as dtype.",
            rows["method"].iloc[0], name, strength, len(rows), where, dtype_name(lm),
        )  # fmt: skip
