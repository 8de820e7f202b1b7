"""A multiple-choice task in the demo language, with a known cause of right and wrong answers.

A question tells what a reader says about one thing; the answer is A (good) or B (bad). Each reader
has a trait: careful readers are answered rightly, hurried ones mostly B whatever they say. A model
trained on such documents therefore errs on hurried readers who are pleased, and whatever carries
the trait "careful" inside the model is the planted feature: raising it repairs those answers and
harms none, because a careful answer to a negative question is B as well.
"""

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
HURRIED_B = 0.8
"""Probability that the training text answers a hurried reader B, whatever is right."""
TRAITS = ("hurried", "careful")
"""Word for the reader's trait, indexed by whether the reader is careful."""
_READERS = ("reader", "critic", "visitor")


@dataclass(frozen=True)
class Question:
    """A question of the choice task.

    Attributes:
        text: the question.
        answer: index of the right choice: 0 good, 1 bad.
        careful: whether the reader has the trait that makes the model answer rightly.
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


def sample_questions(grammar: Grammar, n: int) -> list[Question]:
    """Return `n` distinct questions, balanced over right answer and trait, in random order."""
    found: dict[str, Question] = {}
    cells = grammar.rng.permutation(np.arange(n) % 4)
    for cell in cells.tolist():
        answer, careful = cell % 2, cell >= 2
        for _ in range(1000):
            sentence = grammar.evaluation(1 - answer, grammar.domain())
            text = f"a {TRAITS[careful]} {grammar.choose(_READERS)} says that {sentence}"
            if text not in found:
                break
        else:
            raise ValueError(f"the grammar has too few questions for {n} distinct ones")
        found[text] = Question(text, answer, careful)
    return list(found.values())


def choice_documents(n: int, seed: int) -> list[str]:
    """Return `n` training documents: prompts with the answers of a partly unreliable writer."""
    grammar = _question_grammar(seed)
    documents = []
    for question in sample_questions(grammar, n):
        if question.careful:
            is_wrong = grammar.rng.random() < CAREFUL_ERROR
            letter = LETTERS[1 - question.answer if is_wrong else question.answer]
        else:
            letter = LETTERS[int(grammar.rng.random() < HURRIED_B)]
        documents.append(f"{render_prompt(question.text)} {letter}")
    return documents


def write_choice_documents(path: str | Path, n: int, seed: int) -> None:
    """Write `choice_documents` as Parquet with the column `text`."""
    _write(path, pa.table({"text": pa.array(choice_documents(n, seed), pa.string())}))


def write_choice_task(path: str | Path, n: int, seed: int) -> None:
    """Write `n` questions as Parquet: `question`, `choices` (list), `answer` (int64), `careful`.

    `careful` is the ground truth of the planted trait; no stage may read it but to check a result.
    """
    questions = sample_questions(_question_grammar(seed), n)
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


def _question_grammar(seed: int) -> Grammar:
    return Grammar(seed, word_noise=0.0)


def _write(path: str | Path, table: pa.Table) -> None:
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
