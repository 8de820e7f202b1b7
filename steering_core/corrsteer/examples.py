"""The table of examples of one run: every row with its split and its full prompt.

Three parts: the prompt that the model sees, the splits, and the table with both.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
from transformers import PreTrainedTokenizerBase

from steering_core.corrsteer.tasks import Source, Task, follows
from steering_core.data.columns import normal_forms
from steering_core.errors import ConfigError, DataError
from steering_core.models.tokens import (
    count_tokens,
    naming_special_tokens,
    user_turns,
    uses_chat_template,
)
from steering_core.storage.parquet import write_parquet

if TYPE_CHECKING:
    from steering_core.config.corrsteer_schema import CorrSteerSettings

log = logging.getLogger(__name__)

# ------------------------------------------------------------------------------ the prompt
BETWEEN_SHOTS = "\n\n"
#: Found in the names of models that are tuned to follow instructions.
_TUNED = re.compile(
    r"(?:^|[-_. ])(?:it|instruct|chat|assistant|sft|dpo|rlhf|tuned)(?:$|[-_. \d])", re.IGNORECASE
)


@dataclass(frozen=True)
class PromptOptions:
    """The options of a prompt. Selection, validation and evaluation use the same ones."""

    few_shot: int = 0
    chain_of_thought: bool = False
    chat_template: bool = False


def build_prompts(
    task: Task,
    questions: Sequence[str],
    shots: pd.DataFrame,
    options: PromptOptions,
    tokenizer: PreTrainedTokenizerBase,
) -> list[str]:
    """Return the full prompt of each question.

    Args:
        task: has the text that asks for reasoning.
        questions: the items' prompts.
        shots: rows ``prompt, worked`` to show before each question, in this order.
        options: what to add.
        tokenizer: owner of the chat template.

    Raises:
        ConfigError: if there is no chat template, or the number of shots is not ``few_shot``.
    """
    chat = uses_chat_template(options.chat_template, tokenizer)
    if len(shots) != options.few_shot:
        raise ConfigError(
            f"few_shot: {options.few_shot} examples are asked for, and there are {len(shots)}: "
            "lower few_shot, or use more rows."
        )
    before = task.chain_of_thought if options.chain_of_thought else ""
    for shot in shots.itertuples():
        before += shot.prompt + joined(shot.prompt, shot.worked) + BETWEEN_SHOTS
    texts = [before + question for question in questions]
    return user_turns(tokenizer, texts) if chat else texts


def suggest_chat_template(
    options: PromptOptions, model: str, tokenizer: PreTrainedTokenizerBase
) -> str:
    """Return the advice to set ``chat_template``, or an empty text.

    The advice is given if the option is off, the tokenizer has a template, and the model seems
    tuned: by its name (``-it``, ``-instruct``, ``-chat`` and the like) or by a system prompt in
    the template ("You are …").

    Args:
        options: of the prompts.
        model: hub id or local directory.
        tokenizer: owner of the chat template.
    """
    if options.chat_template or not tokenizer.chat_template:
        return ""
    name = model.rstrip("/").rpartition("/")[2]
    if not _TUNED.search(name) and "You are" not in str(tokenizer.chat_template):
        return ""
    return (
        "try chat_template: true, since the tokenizer has a chat template and the model seems tuned"
    )


def joined(prompt: str, answer: str) -> str:
    """Return ``answer`` with a space before it, unless the prompt ends in white space."""
    return answer if prompt[-1:].isspace() else f" {answer}"


# ------------------------------------------------------------------------------ the splits
SPLITS = ("train", "validation", "test", "shot")

_LEFT_OUT = "left out of "

#: The seed that the published code draws the test rows with, whatever the run's seed.
PUBLISHED_SEED = 42


def assign_splits(
    items: pd.DataFrame,
    source: Source,
    settings: "CorrSteerSettings",
    seed: int,
    *,
    published: bool = False,
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Return the used items with a column ``split``, and the numbers of rows left out by reason.

    Training rows are in random order. A split of the dataset's own is kept. Without one, prompts
    are shuffled: ``own_test_fraction`` of them are test, then ``validation_share`` of the rest are
    validation. Every prompt is in one split only. Prompts are compared in their normal form
    (:func:`steering_core.data.columns.normal_form`): a duplicate goes with its first occurrence,
    and training or validation rows whose prompt is also a test prompt are left out. The last
    ``few_shot`` training rows become the examples in the prompt (split ``shot``); they are all
    different, and no other row has the same prompt as one of them.

    With ``published``, a dataset without a split of its own gets the test rows of seed 42, as in
    the published code; most of these are then training rows under another seed.

    Raises:
        DataError: if a split would be empty.
    """
    rows = _assigned(items, source, settings, seed)
    if published and source.test is None:
        rows = _tested_as_published(rows, _assigned(items, source, settings, PUBLISHED_SEED))
    dropped = {
        f"{name}_also_in_another_split": int(n)
        for name, n in rows.loc[rows["split"].str.startswith(_LEFT_OUT), "split"]
        .str.removeprefix(_LEFT_OUT)
        .value_counts()
        .sort_index()
        .items()
    }
    limits = {
        "train": settings.train_rows,
        "validation": settings.validation_rows,
        "test": settings.test_rows,
    }
    parts = {
        name: rows[rows["split"] == name].head(len(rows) if limit is None else limit)
        for name, limit in limits.items()
    }
    shots = _shots(parts, settings.few_shot)
    shown = parts["train"]["form"].isin(shots["form"])
    again = int(shown.sum()) - len(shots)
    if again:
        dropped["train_also_an_example"] = again
    parts["train"] = parts["train"][~shown]
    for name, part in parts.items():
        if part.empty or len(shots) < settings.few_shot:
            raise DataError(f"too few rows: the {name} split of {len(items)} rows is empty.")
    parts["shot"] = shots.assign(split="shot")
    parts["test"] = parts["test"].sort_index()
    if dropped:
        log.warning(
            "rows left out because their prompt is in another split too: %s",
            ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in dropped.items()),
        )
    rows = pd.concat([parts[name] for name in SPLITS], ignore_index=True)
    return rows.drop(columns="form"), dropped


def _shots(parts: dict[str, pd.DataFrame], n: int) -> pd.DataFrame:
    """Return the last ``n`` different training rows whose prompts are in no other split."""
    others = pd.concat([parts["validation"], parts["test"]])["form"]
    free = parts["train"][~parts["train"]["form"].isin(others)].drop_duplicates("form", keep="last")
    return free.iloc[len(free) - min(n, len(free)) :]


def _assigned(
    items: pd.DataFrame, source: Source, settings: "CorrSteerSettings", seed: int
) -> pd.DataFrame:
    """Return the items in random order with their splits and the normal forms of their prompts.

    Splits have their full length here. Rows of a split that is not read are left out.
    """
    rng = np.random.default_rng([seed, 4])
    shuffled = items.iloc[rng.permutation(len(items))]
    shuffled = shuffled.assign(form=normal_forms(shuffled["prompt"]))
    if source.test is None:
        split = _own(shuffled, settings)
    else:
        split = _given(shuffled, source, settings)
    rows = shuffled.assign(split=split)
    return rows[rows["split"] != ""]


def _tested_as_published(mine: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with the test rows of the published seed; a row may be in two splits."""
    test = published[published["split"] == "test"]
    used = mine[mine["split"] != "test"]
    n_seen = int(used["form"].isin(test["form"]).sum())
    if n_seen:
        log.warning(
            "published_split: %d of %d training and validation rows are test rows too: the "
            "measured accuracy is not that on new rows.",
            n_seen,
            len(used),
        )
    return pd.concat([used, test])


def _own(rows: pd.DataFrame, settings: "CorrSteerSettings") -> np.ndarray:
    """Return the split of each row of a dataset that has no test split."""
    code, prompts = pd.factorize(rows["form"])
    n_test = round(settings.own_test_fraction * len(prompts))
    n_validation = round(settings.validation_share * (len(prompts) - n_test))
    cuts = [n_test, n_test + n_validation]
    return np.array(["test", "validation", "train"])[np.searchsorted(cuts, code, side="right")]


def _given(rows: pd.DataFrame, source: Source, settings: "CorrSteerSettings") -> np.ndarray:
    """Return the split of each row of a dataset that has a test split."""
    origin = rows["source_split"].to_numpy()
    split = np.where(origin == source.train, "train", "").astype(object)
    split[origin == source.test] = "test"
    if source.validation is not None:
        split[origin == source.validation] = "validation"
    else:
        code, prompts = pd.factorize(rows["form"].where(split == "train", ""))
        n_validation = round(settings.validation_share * len(prompts))
        split[(split == "train") & (code < n_validation)] = "validation"
    tested = set(rows.loc[split == "test", "form"])
    _leave_out(split, (split != "test") & rows["form"].isin(tested).to_numpy())
    validated = set(rows.loc[split == "validation", "form"])
    _leave_out(split, (split == "train") & rows["form"].isin(validated).to_numpy())
    return split


def _leave_out(split: np.ndarray, rows: np.ndarray) -> None:
    """Mark rows of a split as left out of it, in place."""
    marked = rows & (split != "")
    split[marked] = [_LEFT_OUT + name for name in split[marked]]


# ------------------------------------------------------------------------------ the table
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


def prompt_options(settings: "CorrSteerSettings") -> PromptOptions:
    """Return the part of the settings that makes the prompts."""
    return PromptOptions(settings.few_shot, settings.chain_of_thought, settings.chat_template)


def build_examples(
    items: pd.DataFrame,
    task: Task,
    source: Source,
    settings: "CorrSteerSettings",
    tokenizer: PreTrainedTokenizerBase,
    *,
    seed: int,
    prepend_bos: bool,
    max_tokens: int,
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Return the rows of :data:`SCHEMA`, and the numbers of items left out by reason.

    Args:
        items: rows as :func:`steering_core.corrsteer.read_items.fetch_items` returns them.
        task: the task.
        source: where the items come from.
        settings: sizes of the splits and prompt options.
        tokenizer: counts tokens and writes the chat template.
        seed: of the run; selection and evaluation share its splits.
        prepend_bos: True if prompts start with BOS.
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
    """Return the seed, the rows of each split, and the rows left out by reason.

    Args:
        rows: of :func:`build_examples`.
        seed: of the run.
        dropped: of :func:`build_examples`.
        suggestion: advice for when the unsteered answers are no baseline; may be empty.
    """
    counts = rows["split"].value_counts()
    if suggestion:
        log.warning("the prompts are without a chat template: %s", suggestion)
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
        raise DataError(
            f"{len(rows) - len(found)} of {len(rows)} {split} rows have no answer in {answers}: "
            "delete it and run again."
        )
    return found


def _without_special_tokens(
    items: pd.DataFrame, tokenizer: PreTrainedTokenizerBase
) -> pd.DataFrame:
    """Drop the items that name a special token: a chat template would read it as that token."""
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
