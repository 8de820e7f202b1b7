"""The interface of a judge, for both halves of the project, and the judges that need no model.

A :class:`Judge` reads completions, never their prompts, and compares each with its gold: the class
that steering aims at, or the right answer to a task's question. The judges of labelled texts are
:class:`ClassJudge`. The success functions of tasks are in :mod:`steering_core.corrsteer.success`,
the judge of refusals is in :mod:`steering_core.metrics.refusal`.

This module imports no model library, since each start of the workflow reads the tasks and their
judges. Judges that run a model are in :mod:`steering_core.metrics.classifiers`.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from pydantic import BaseModel, ConfigDict, Field

from steering_core.config.validation import read_validated
from steering_core.errors import ConfigError, ModelError

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")


def words_of(text: str) -> list[str]:
    """Return the words of ``text`` in lower case: letters and digits, apostrophes inside."""
    return _WORD.findall(text.lower())


def is_empty(texts: Iterable[str]) -> Bool[np.ndarray, " n"]:
    """Return which texts have no word: no letter and no digit of any script."""
    return np.array([_WORD.search(text) is None for text in texts], dtype=bool)


@dataclass(frozen=True)
class Verdict:
    """What a judge says of some completions.

    Attributes:
        answer: the answer that was read from each text; None if the text is empty or gives none.
        success: True if the completion is in the wanted class, or answers the question rightly.
        score: the number in [0, 1] behind the decision, NaN for an empty text. A subclass that
            only compares leaves it None; :meth:`Judge.judge` then fills in 1 and 0.
    """

    answer: list[str | None]
    success: Bool[np.ndarray, " n"]
    score: Float[np.ndarray, " n"] | None = None


class Judge(ABC):
    """Judges completions against their golds. A subclass implements :meth:`_judge`."""

    #: Hub id of the classifier that :meth:`load` loads, or None.
    classifier: str | None = None

    def load(self, revision: str | None = None, device: str = "auto") -> Any:
        """Return the loaded classifier, or None if the judge needs none.

        Raises:
            ModelError: if it cannot be loaded.
        """
        return None

    def judge(
        self,
        texts: Sequence[str],
        golds: Sequence[Any],
        letters: Sequence[Sequence[str]] | None = None,
        classifier: Any = None,
        *,
        reasoned: bool = False,
    ) -> Verdict:
        """Judge completions (without their prompts).

        An empty completion has no score, no answer and no success, and the subclass does not see
        it: a classifier would put it in some class all the same.

        Args:
            texts: completions.
            golds: what each is compared with: a class (0 or 1), a letter, a number, a text.
            letters: options of each; empty, or None for all, where the answer is free text.
            classifier: what :meth:`load` returned.
            reasoned: True if the prompts asked for reasoning before the answer.

        Raises:
            ModelError: if a classifier is needed and is None, or its scores are NaN.
        """
        n = len(texts)
        answers: list[str | None] = [None] * n
        success, score = np.zeros(n, dtype=bool), np.full(n, np.nan)
        said = np.flatnonzero(~is_empty(texts)).tolist()
        if said:
            found = self._judge(
                [texts[i] for i in said],
                [golds[i] for i in said],
                [() if letters is None else letters[i] for i in said],
                classifier,
                reasoned=reasoned,
            )
            success[said] = found.success
            score[said] = found.success if found.score is None else found.score
            for i, answer in zip(said, found.answer, strict=True):
                answers[i] = answer
        return Verdict(answers, success, score)

    @abstractmethod
    def _judge(
        self,
        texts: Sequence[str],
        golds: Sequence[Any],
        letters: Sequence[Sequence[str]],
        classifier: Any = None,
        *,
        reasoned: bool = False,
    ) -> Verdict:
        """Judge completions that have a word each; arguments as :meth:`judge`."""

    def needed(self, classifier: Any) -> Any:
        """Return what :meth:`load` returned.

        Raises:
            ModelError: if it is None.
        """
        if classifier is None:
            raise ModelError(f"{self.classifier} is needed to judge answers and was not loaded.")
        return classifier


def same_answers(answers: Sequence[str | None], golds: Sequence[str]) -> Bool[np.ndarray, " n"]:
    """Return which answers are the gold's."""
    return np.array([a == b for a, b in zip(answers, golds, strict=True)], dtype=bool)


class ClassJudge(Judge):
    """Judges by a score for class 1; the golds are classes. A subclass implements :meth:`_score`.

    A score above 0.5 means class 1, a score below 0.5 class 0; 0.5 itself means neither.
    """

    #: True if the judge may give a text no score; such a text is in no class.
    abstains = False

    def score(self, texts: Sequence[str]) -> Float[np.ndarray, " n"]:
        """Return the score of each text in [0, 1], NaN for an empty one.

        Raises:
            ModelError: if another score is NaN.
        """
        return self.judge(texts, [1] * len(texts)).score

    def _judge(
        self,
        texts: Sequence[str],
        golds: Sequence[int],
        letters: Sequence[Sequence[str]],
        classifier: Any = None,
        *,
        reasoned: bool = False,
    ) -> Verdict:
        """Score the completions and compare their classes with the golds."""
        score = np.asarray(self._score(texts), dtype=np.float64)
        if not self.abstains and not np.isfinite(score).all():
            raise ModelError("the judge's scores are NaN: its weights are damaged, replace them.")
        unclear = np.isnan(score) | (score == 0.5)
        answer = [
            None if no else str(int(value > 0.5)) for no, value in zip(unclear, score, strict=True)
        ]
        return Verdict(answer, in_target_class(score, np.asarray(golds)).astype(bool), score)

    @abstractmethod
    def _score(self, texts: Sequence[str]) -> Float[np.ndarray, " n"]:
        """Score texts that have a word each."""


def in_target_class(
    scores: Float[np.ndarray, " n"], target_class: int | Int[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """Return 1.0 where the score falls strictly on the target's side of 0.5, else 0.0.

    NaN, the score of an empty text, is on neither side.
    """
    return np.where(np.equal(target_class, 1), scores > 0.5, scores < 0.5).astype(float)


class Lexicon(ClassJudge):
    """Counts words of a known lexicon: {"positive": [...], "negative": [...]}.

    Raises:
        ConfigError: if the file is missing or has another form.
    """

    def __init__(self, path: str | Path):
        self.positive, self.negative = read_lexicon(path)

    def _score(self, texts: Sequence[str]) -> Float[np.ndarray, " n"]:
        """Return the positive share of the lexicon words of each text; 0.5 without any."""
        scores = []
        for text in texts:
            words = words_of(text)
            positive = sum(word in self.positive for word in words)
            total = positive + sum(word in self.negative for word in words)
            scores.append(positive / total if total else 0.5)
        return np.array(scores)


#: VADER's authors call a text neutral whose compound score is nearer to 0 than this.
_NEUTRAL = 0.05


class Vader(ClassJudge):
    """Judges sentiment by VADER (Hutto and Gilbert 2014), which needs no model and no hub.

    The compound score, from −1 to 1, is moved to [0, 1]. A text that VADER calls neutral scores
    0.5, which is neither class.
    """

    def __init__(self) -> None:
        from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

        self._analyzer = SentimentIntensityAnalyzer()

    def _score(self, texts: Sequence[str]) -> Float[np.ndarray, " n"]:
        """Return the compound score of each text, moved to [0, 1]."""
        compound = np.array([self._analyzer.polarity_scores(text)["compound"] for text in texts])
        return np.where(np.abs(compound) < _NEUTRAL, 0.5, (1 + compound) / 2)


class _LexiconFile(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    positive: Annotated[list[str], Field(description="a list of words that speak for class 1")]
    negative: Annotated[list[str], Field(description="a list of words that speak for class 0")]


def read_lexicon(path: str | Path) -> tuple[set[str], set[str]]:
    """Return the positive and the negative words of {"positive": [...], "negative": [...]}.

    Raises:
        ConfigError: if the file is missing, has another form, or holds an entry that is not a
            single word in lower case, and so matches no word of a text.
    """
    words: _LexiconFile = read_validated(_LexiconFile, path, "classifier.lexicon")
    for word in [*words.positive, *words.negative]:
        if words_of(word) != [word]:
            raise ConfigError(
                f"classifier.lexicon: {path}: {word!r} can match no word of a text: give single "
                "words in lower case, of letters, digits and apostrophes."
            )
    return set(words.positive), set(words.negative)


def score_label(classifier: Mapping[str, Any] | None) -> str:
    """Return the caption of a score: what it is and which judge gave it.

    Args:
        classifier: that section of the task; None if the evaluation probe is the judge.
    """
    if classifier is None:
        return "P(target), evaluation probe"
    if classifier["lexicon"] is not None:
        return "target words (share), lexicon"
    if classifier.get("builtin") == "vader":
        return "sentiment of the target (0 to 1), VADER"
    if classifier.get("api") is not None:
        return "half the rating of the concept, language model"
    return "P(target), classifier"


def target_scores(scores: pd.Series, target_class: int) -> pd.Series:
    """Return scores for the target class from those for class 1, both in [0, 1]; NaN stays."""
    return scores if target_class == 1 else 1 - scores
