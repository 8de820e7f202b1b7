"""A multiple-choice task in the demo language, with a known cause of right and wrong answers.

A question tells what a reader says about one thing; the answer is A (good) or B (bad). Readers
marked "careful" are answered rightly in the training text, all others mostly B whatever they say.
A model trained on it therefore errs on unmarked readers who are pleased, and whatever carries the
mark inside the model is the planted feature: raising it repairs those answers and harms none,
because a careful answer to a negative question is B as well. Three questions of four are positive
in the task, so that success goes with the mark more than with the answer B: given a perfect
follower of the rule, accuracy is 0.625, and the correlation of success is 0.77 with the mark, 0.6
with the answer A, and 0.45 with a negative question.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from steering_core.demo.grammar import Grammar
from steering_core.storage.atomic import atomic_path

CHOICES = ("good", "bad")
LETTERS = ("A", "B")
CAREFUL_ERROR = 0.03
"""Probability that the training text answers a careful reader wrongly."""
UNMARKED_B = 0.7
"""Probability that the training text answers an unmarked reader B, whatever is right."""
MARK = "careful"
"""The word before a careful reader."""
_READERS = ("reader", "critic", "visitor")
_BALANCED = ((1, True), (1, False), (0, True), (0, False))  # (sentiment, careful)
_MOSTLY_POSITIVE = 3 * _BALANCED[:2] + _BALANCED[2:]


@dataclass(frozen=True)
class Question:
    """A question of the choice task.

    Attributes:
        text: the question.
        answer: index of the right choice: 0 good, 1 bad.
        careful: whether the reader carries the mark that makes the model answer rightly.
    """

    text: str
    answer: int
    careful: bool


def render_prompt(question: str) -> str:
    """Return the prompt for a question as the training documents write it; a letter follows."""
    options = " ".join(
        f"{letter} {choice}" for letter, choice in zip(LETTERS, CHOICES, strict=True)
    )
    return f"question : {question} choices : {options} . answer :"


def sample_questions(
    seed: int, n: int, cells: Sequence[tuple[int, bool]] = _MOSTLY_POSITIVE
) -> list[Question]:
    """Return `n` distinct questions in random order.

    Args:
        seed: of the sample.
        n: number of questions.
        cells: pairs (sentiment, careful) that occur equally often (±1).

    Raises:
        ValueError: the grammar cannot make `n` distinct questions.
    """
    grammar = Grammar(seed, word_noise=0.0)
    found: dict[str, Question] = {}
    for index in grammar.rng.permutation(np.arange(n) % len(cells)).tolist():
        sentiment, careful = cells[index]
        for _ in range(1000):
            reader = f"{MARK} {grammar.choose(_READERS)}" if careful else grammar.choose(_READERS)
            text = f"a {reader} says that {grammar.evaluation(sentiment, grammar.domain())}"
            if text not in found:
                break
        else:
            raise ValueError(f"the grammar has too few questions for {n} distinct ones")
        found[text] = Question(text, 1 - sentiment, careful)
    return list(found.values())


def choice_documents(n: int, seed: int) -> list[str]:
    """Return `n` training documents: prompts with the answers of a partly unreliable writer.

    They are balanced over sentiment and mark.
    """
    rng = np.random.default_rng([seed, 1])
    documents = []
    for question in sample_questions(seed, n, _BALANCED):
        if question.careful:
            is_wrong = rng.random() < CAREFUL_ERROR
            letter = LETTERS[1 - question.answer if is_wrong else question.answer]
        else:
            letter = LETTERS[int(rng.random() < UNMARKED_B)]
        documents.append(f"{render_prompt(question.text)} {letter}")
    return documents


def write_choice_documents(path: str | Path, n: int, seed: int) -> None:
    """Write `choice_documents` as Parquet with the column `text`."""
    _write(path, pa.table({"text": pa.array(choice_documents(n, seed), pa.string())}))


def write_choice_task(path: str | Path, n: int, seed: int) -> None:
    """Write `n` questions as Parquet: `question`, `choices` (list), `answer` (int64), `careful`.

    `careful` is the ground truth of the planted mark; no stage may read it but to check a result.
    """
    questions = sample_questions(seed, n)
    _write(
        path,
        pa.table(
            {
                "question": pa.array([q.text for q in questions], pa.string()),
                "choices": pa.array([list(CHOICES)] * n, pa.list_(pa.string())),
                "answer": pa.array([q.answer for q in questions], pa.int64()),
                "careful": pa.array([q.careful for q in questions], pa.bool_()),
            }
        ),
    )


def _write(path: str | Path, table: pa.Table) -> None:
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
