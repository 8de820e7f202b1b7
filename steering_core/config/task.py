"""A task, as configured: a labelled dataset, the concept's texts and the judge of completions."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from steering_core.config.model import Closed


class Classifier(Closed):
    """The judge of completions: a text classifier with its label of class 1, or a lexicon file."""

    model: str | None = None
    revision: str = "main"
    label: str | None = None
    lexicon: str | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> "Classifier":
        if (self.lexicon is None) == (self.model is None) or (self.model is None) != (
            self.label is None
        ):
            raise ValueError("give either model and label (the label of class 1), or lexicon")
        return self


class Task(Closed):
    """A labelled dataset, the concept's texts and the judge of completions.

    The columns take one of two forms:

    - ``text`` and ``label`` name two columns. Class 1 is label 1, or the label ``positive_label``,
      or every score above ``threshold``.
    - ``question``, ``positive`` and ``negative`` name the columns of question-answer pairs. The
      question with the positive answer is class 1, with the negative answer class 0. The rows of
      one question form one group.
    """

    dataset: str
    revision: str = "main"
    subset: str | None = None
    split: str = "train"
    text: str | None = None
    label: str | None = None
    threshold: Annotated[float, Field(allow_inf_nan=False)] | None = None
    positive_label: str | int | float | None = None
    group: str | None = None
    question: str | None = None
    positive: str | None = None
    negative: str | None = None
    concept: str
    target_class: Literal[0, 1] = 1
    classifier: Classifier | None = None
    settings: dict = {}

    @model_validator(mode="after")
    def _one_form(self) -> "Task":
        pair = (self.question, self.positive, self.negative)
        flat = (self.text, self.label)
        if not ((all(pair) and not any(flat)) or (all(flat) and not any(pair))):
            raise ValueError("give either text and label, or question, positive and negative")
        cut = (self.threshold, self.positive_label)
        if any(pair) and (self.group or cut != (None, None)):
            raise ValueError("group, threshold and positive_label belong to text and label")
        if None not in cut:
            raise ValueError("give threshold, for a score, or positive_label, for a class")
        return self
