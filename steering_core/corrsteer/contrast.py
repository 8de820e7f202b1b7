"""Pairs of prompts for contrastive and persona directions: one right or willing, one not."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from transformers import PreTrainedTokenizerBase

from steering_core.corrsteer.examples import joined
from steering_core.corrsteer.tasks import Task
from steering_core.models.tokens import around_the_turn


def wrong_answers(task: Task, rows: pd.DataFrame, seed: int) -> list[str | None]:
    """Return a wrong answer to each row, in the form of the right one in ``worked``.

    It is drawn at random from the row's other letters, from the task's other answers if it lists
    them, or else from the answers to other rows. None if there is no other answer.

    Args:
        task: may list the possible answers.
        rows: ``worked, letters``.
        seed: of the draws.
    """
    rng = np.random.default_rng([seed, 9])
    everyones = sorted(set(rows["worked"]))
    found: list[str | None] = []
    for right, letters in zip(rows["worked"], rows["letters"], strict=True):
        known = list(letters) if len(letters) else list(task.answers) or everyones
        others = [answer for answer in known if answer != right]
        found.append(others[int(rng.integers(len(others)))] if others else None)
    return found


def answer_pairs(task: Task, rows: pd.DataFrame, seed: int) -> tuple[list[str], list[str]]:
    """Return the prompts followed by their right answers, and the same followed by wrong ones.

    Rows without a wrong answer are left out.
    """
    right, wrong = [], []
    wrongs = wrong_answers(task, rows, seed)
    for prompt, worked, other in zip(rows["prompt"], rows["worked"], wrongs, strict=True):
        if other is not None:
            right.append(prompt + joined(prompt, worked))
            wrong.append(prompt + joined(prompt, other))
    return right, wrong


def persona_pairs(
    task: Task,
    prompts: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    *,
    chat_template: bool,
) -> tuple[list[str], list[str]]:
    """Return the prompts with the task's instruction to succeed before them, and the one to fail.

    In a chat template the instruction stands at the start of the user's turn.
    """
    front = ""
    if chat_template:
        front, _ = around_the_turn(tokenizer)
    succeed, fail = (
        [front + persona + prompt.removeprefix(front) for prompt in prompts]
        for persona in task.personas
    )
    return succeed, fail
