"""The table of examples of one run: every row with its split and its full prompt."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from transformers import PreTrainedTokenizerBase

from steering_core.config.corrsteer import CorrSteerSettings
from steering_core.corrsteer.prompts import PromptOptions, build_prompts
from steering_core.corrsteer.splits import assign_splits
from steering_core.corrsteer.tasks import Source, Task, follows
from steering_core.errors import DataError
from steering_core.models.tokens import count_tokens, naming_special_tokens
from steering_core.storage.parquet import write_parquet

log = logging.getLogger(__name__)

SCHEMA = pa.schema(
    [
        pa.field("example_id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("gold", pa.string(), nullable=False),
        pa.field("worked", pa.string(), nullable=False),
        pa.field("letters", pa.list_(pa.string()), nullable=False),
        pa.field("n_tokens", pa.int32(), nullable=False),
    ]
)


def prompt_options(settings: CorrSteerSettings) -> PromptOptions:
    """Return how the settings put questions."""
    return PromptOptions(settings.few_shot, settings.chain_of_thought, settings.chat_template)


def build_examples(
    items: pd.DataFrame,
    task: Task,
    source: Source,
    settings: CorrSteerSettings,
    tokenizer: PreTrainedTokenizerBase,
    *,
    seed: int,
    prepend_bos: bool,
    max_tokens: int,
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Return the rows of :data:`SCHEMA`, and how many items were left out, by reason.

    Args:
        items: what :func:`steering_core.corrsteer.read_items.fetch_items` read.
        task: the task.
        source: where the items come from.
        settings: sizes of the splits and prompt options.
        tokenizer: counts tokens and writes the chat template.
        seed: of the run; one seed gives one split, for selection and evaluation alike.
        prepend_bos: whether BOS stands in front.
        max_tokens: longest prompt, BOS included.

    Raises:
        DataError: if a prompt is too long and ``long_prompts`` is ``error``, if a split is empty,
            or if every item names a special token and a chat template is used.
    """
    options = prompt_options(settings)
    n_items, too_long = len(items), 0
    if settings.chat_template:
        items = _without_special_tokens(items, tokenizer)
    n_special = n_items - len(items)
    if settings.long_prompts == "drop":
        # Before splitting, so that dropping takes no row from a split that is already small.
        alone = PromptOptions(0, settings.chain_of_thought, settings.chat_template)
        lengths = _lengths(task, items, items.iloc[:0], alone, tokenizer, prepend_bos)
        kept = [n <= max_tokens for n in lengths]
        too_long = len(kept) - sum(kept)
        if too_long:
            log.warning("%d of %d rows are too long: dropped", too_long, len(kept))
        items = items[kept]
    own = replace(task, source=source)
    published = follows("published_split", own, asked=settings.published_split)
    rows, dropped = assign_splits(items, source, settings, seed, published=published)
    shots = rows[rows["split"] == "shot"]
    rows["n_tokens"] = _lengths(task, rows, shots, options, tokenizer, prepend_bos)
    rows["prompt"] = build_prompts(task, rows["prompt"].tolist(), shots, options, tokenizer)
    used = rows["split"] != "shot"
    long = used & (rows["n_tokens"] > max_tokens)
    if long.any():
        message = (
            f"{int(long.sum())} prompts are longer than {max_tokens} tokens, up to "
            f"{int(rows.loc[long, 'n_tokens'].max())}"
        )
        if settings.long_prompts == "error":
            raise DataError(
                f"{message}: set long_prompts to drop, or raise max_tokens if the context allows."
            )
        log.warning("%s: dropped", message)
        too_long += int(long.sum())
        rows = rows[~long]
    for reason, n in (("too_long", too_long), ("names_a_special_token", n_special)):
        if n:
            dropped[reason] = n
    rows = rows.rename(columns={"item_id": "example_id"})[SCHEMA.names].reset_index(drop=True)
    return rows, dropped


def summary(
    rows: pd.DataFrame, seed: int, dropped: Mapping[str, int], *, suggestion: str = ""
) -> dict[str, Any]:
    """Return what the split was: seed, rows of each split, and rows left out by reason.

    Args:
        rows: of :func:`build_examples`.
        seed: of the run.
        dropped: of :func:`build_examples`.
        suggestion: what to try where the unsteered answers are no baseline; may be empty.
    """
    counts = rows["split"].value_counts()
    if suggestion:
        log.warning("the prompts are put without a chat template: %s", suggestion)
    return {
        "seed": seed,
        "rows": {str(k): int(v) for k, v in sorted(counts.items())},
        "dropped": dict(dropped),
        "suggestion": suggestion,
    }


def write_examples(path: str | Path, rows: pd.DataFrame) -> None:
    """Write the table as Parquet."""
    write_parquet(path, rows, SCHEMA)


def read_examples(path: str | Path, split: str) -> pd.DataFrame:
    """Read the rows of one split, in file order."""
    rows = pd.read_parquet(path)
    return rows[rows["split"] == split].reset_index(drop=True)


def read_answered(path: str | Path, split: str, answers: str | Path) -> pd.DataFrame:
    """Read the rows of one split with the ``success`` of their answers, in file order.

    Raises:
        DataError: if a row has no answer.
    """
    rows = read_examples(path, split)
    success = pd.read_parquet(answers, columns=["example_id", "success"])
    found = rows.merge(success, on="example_id", validate="one_to_one")
    if len(found) != len(rows):
        raise DataError(f"{len(rows) - len(found)} of {len(rows)} {split} rows have no answer.")
    return found


def _without_special_tokens(
    items: pd.DataFrame, tokenizer: PreTrainedTokenizerBase
) -> pd.DataFrame:
    """Drop the items that name a special token; in a chat template it would be that token."""
    texts = (items["prompt"] + "\n" + items["worked"]).tolist()
    names = naming_special_tokens(tokenizer, texts)
    if all(names):
        raise DataError(
            "chat_template: every row names a special token of the tokenizer, which the template "
            "would read as that token: clean the texts, or set chat_template to false."
        )
    if any(names):
        log.warning(
            "%d of %d rows name a special token, which a chat template would read as that token: "
            "dropped",
            sum(names),
            len(names),
        )
    return items[[not named for named in names]]


def _lengths(
    task: Task,
    rows: pd.DataFrame,
    shots: pd.DataFrame,
    options: PromptOptions,
    tokenizer: PreTrainedTokenizerBase,
    prepend_bos: bool,
) -> list[int]:
    prompts = build_prompts(task, rows["prompt"].tolist(), shots, options, tokenizer)
    return count_tokens(tokenizer, prompts, prepend_bos, control_tokens=options.chat_template)
