"""The prompt a model sees: reasoning prefix, examples, question, chat template."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from transformers import PreTrainedTokenizerBase

from steering_core.corrsteer.tasks import Task
from steering_core.errors import ConfigError

BETWEEN_SHOTS = "\n\n"
#: Part of the name of a model that is tuned to follow instructions.
_TUNED = re.compile(
    r"(?:^|[-_. ])(?:it|instruct|chat|assistant|sft|dpo|rlhf|tuned)(?:$|[-_. \d])", re.IGNORECASE
)


@dataclass(frozen=True)
class PromptOptions:
    """How questions are put; one object serves selection, pruning and evaluation."""

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
        task: says how to ask for reasoning.
        questions: the items' prompts.
        shots: rows ``prompt, worked`` to show before each question, in this order.
        options: what to add.
        tokenizer: owner of the chat template.

    Raises:
        ConfigError: if there is no chat template, or the shots are not as many as asked for.
    """
    if len(shots) != options.few_shot:
        raise ConfigError(f"few_shot: {options.few_shot} examples are needed, not {len(shots)}.")
    if options.chat_template and not tokenizer.chat_template:
        raise ConfigError("chat_template: the tokenizer of this model has none.")
    before = task.chain_of_thought if options.chain_of_thought else ""
    for shot in shots.itertuples():
        before += shot.prompt + joined(shot.prompt, shot.worked) + BETWEEN_SHOTS
    texts = [before + question for question in questions]
    if not options.chat_template:
        return texts
    return [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
        )
        for text in texts
    ]


def suggest_chat_template(
    options: PromptOptions, model: str, tokenizer: PreTrainedTokenizerBase
) -> str:
    """Return the advice to set ``chat_template``; empty if it is set or does not seem to fit.

    It fits if the tokenizer has a template, and the model's name (``-it``, ``-instruct``, ``-chat``
    and the like) or a system prompt in the template ("You are …") says that the model is tuned.

    Args:
        options: how questions are put.
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
    """Return ``answer`` with the space that sets it off from the prompt, if it needs one."""
    return answer if prompt[-1:].isspace() else f" {answer}"
