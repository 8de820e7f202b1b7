"""What a task consists of: declarative objects that no other module needs to know by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from steering_core.corrsteer.success import ExactOption
from steering_core.metrics.judges import Judge

Pooling = Literal["max", "mean"]

COT_SELECT = "Let's think step by step. Answer the question after the 'Answer:' tag.\n\n"
COT_FREE = "Let's think step by step.\n"

#: Instructions to succeed and to fail, for the persona direction.
PERSONAS = ("Answer the following correctly.\n\n", "Answer the following incorrectly.\n\n")


@dataclass(frozen=True)
class Item:
    """One question as a task reads it from a dataset row.

    Attributes:
        prompt: what the model sees, without examples before it.
        gold: what the answer is compared with: a letter, a number, a text, or a verdict.
        worked: the answer as an example in the prompt or a fine-tuning target shows it.
        letters: the options of a select task; empty for free text.
    """

    prompt: str
    gold: str
    worked: str
    letters: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """Where the rows of a task are.

    Attributes:
        dataset: hub id or local file.
        subsets: configurations that are merged, in this order; empty for the only one.
        train: split of the training rows, or of all rows if the task splits itself.
        validation: split of the validation rows; None takes 10 % of the training rows.
        test: split of the test rows; None makes the task split itself.
    """

    dataset: str
    train: str
    validation: str | None = None
    test: str | None = None
    subsets: tuple[str, ...] = ()

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits of the dataset that are read."""
        return tuple(s for s in (self.train, self.validation, self.test) if s is not None)


@dataclass(frozen=True)
class Task:
    """A task. Making one of these and registering it is all it takes to add a task.

    Attributes:
        name: name in the configuration and in the published tables.
        source: where its rows are.
        read: one dataset row to an :class:`Item`, or None for a row that is not of this task.
        published_read: the same with the published prompt, where ours departs from it.
        success: how an answer is judged.
        new_tokens: length of an answer.
        reasoning_tokens: length of an answer that reasons first, if that is longer.
        pooling: over generated tokens, for correlation and coefficient alike.
        answers: every ``worked`` answer there is, where they are few and no letters.
        personas: what is put before a prompt to ask for success, and for failure.
    """

    name: str
    source: Source
    read: Callable[[Mapping[str, Any]], Item | None]
    success: Judge
    new_tokens: int
    reasoning_tokens: int = 512
    pooling: Pooling = "max"
    answers: tuple[str, ...] = ()
    personas: tuple[str, str] = PERSONAS
    published_read: Callable[[Mapping[str, Any]], Item | None] | None = None

    def length(self, *, reasoned: bool) -> int:
        """Return how many tokens an answer may have."""
        return max(self.new_tokens, self.reasoning_tokens) if reasoned else self.new_tokens

    @property
    def is_select(self) -> bool:
        """Whether the answer is one of given letters."""
        return isinstance(self.success, ExactOption)

    @property
    def chain_of_thought(self) -> str:
        """What goes before the prompt when the model is to reason first."""
        return COT_SELECT if self.is_select else COT_FREE
