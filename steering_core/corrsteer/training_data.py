"""What the methods of optimal sparse steering learn from on a task of CorrSteer.

Success takes the place of the label, right and wrong answers that of contrastive pairs, and
instructions to succeed and to fail that of personas. What costs passes of the model is computed
only for the methods that need it.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from transformers import PreTrainedTokenizerBase

from steering_core.corrsteer.answers import BATCH_TOKENS, Session
from steering_core.corrsteer.examples import joined
from steering_core.corrsteer.plan import Rows
from steering_core.corrsteer.tasks import Task
from steering_core.errors import DataError
from steering_core.generation.new_inputs import Residuals
from steering_core.generation.sampling import Sampling
from steering_core.generation.score_gradients import answer_gradient, estimate_fisher
from steering_core.methods.directions import FitData
from steering_core.models.site import Site
from steering_core.models.tokens import around_the_turn, count_tokens, tokenize
from steering_core.statistics.fisher import Fisher

if TYPE_CHECKING:
    from steering_core.config.schema import FisherSettings

#: Residuals of texts that should differ in success: of those that succeed, and of those that fail.
Pairs = tuple[Residuals, Residuals]

#: Training rows that pairs of texts are made of, at most.
PAIR_ROWS = 500


def _no_gradient() -> Float[np.ndarray, " d_model"]:
    raise ValueError("gradient: a program is on the likelihood gradient, and there is none")


def _no_fisher() -> Fisher:
    raise ValueError("fisher: a program needs the Fisher information, and there is none")


@dataclass(frozen=True)
class TrainingData:
    """What the methods learn from, at one site.

    Attributes:
        site: where the residuals are, and where the methods steer.
        residuals: of the training prompts, at their last token.
        success: whether the unsteered model succeeded on them.
        dictionary: unit decoder rows of the selected features.
        correlation: of each of these features with success.
        contrast: returns residuals of prompts with right and with wrong answers.
        personas: returns residuals of prompts after the instruction to succeed, and to fail.
        shared_by: residuals of the validation prompts at their last token. A shared vector is
            solved for the one that is furthest from the margin.
        seed: of the probe's folds and the random direction.
        device: of the model.
        gradient: returns the likelihood gradient of right against wrong answers.
        fisher: returns what vectors cost in KL.
    """

    site: Site
    residuals: Residuals
    success: Bool[np.ndarray, " n"]
    dictionary: Float[np.ndarray, "m d_model"]
    correlation: Float[np.ndarray, " m"]
    contrast: Callable[[], Pairs]
    personas: Callable[[], Pairs]
    shared_by: Residuals
    seed: int
    device: torch.device
    gradient: Callable[[], Float[np.ndarray, " d_model"]] = _no_gradient
    fisher: Callable[[], Fisher] = _no_fisher

    @property
    def one_outcome(self) -> bool:
        """Whether the training rows all succeed, or all fail."""
        return bool(self.success.all() == self.success.any())

    def fit_data(self, directions: Collection[str]) -> FitData:
        """Return the training rows with the texts that some directions are learned from.

        Args:
            directions: as ``concept_direction`` names them.

        Raises:
            DataError: if a direction cannot be learned from the rows.
        """
        nothing = np.zeros((0, self.residuals.shape[1]))
        contrast = self.contrast() if "contrastive" in directions else (nothing, nothing)
        personas = self.personas() if "repe" in directions else (nothing, nothing)
        if "contrastive" in directions and not len(contrast[0]):
            raise DataError("there is no wrong answer to make a pair with")
        if "mean_difference" in directions and self.one_outcome:
            raise DataError("one outcome only")
        return FitData(
            self.residuals.astype(np.float64),
            self.success.astype(int),
            *contrast,
            *personas,
            self.correlation,
            seed=self.seed,
            centred=self.site.centred,
            likelihood_gradient=self.gradient() if "likelihood_gradient" in directions else None,
        )


def training_data(
    session: Session,
    best: pd.DataFrame,
    site: Site,
    rows_of: Rows,
    train: pd.DataFrame,
    validation: Residuals,
    seed: int,
    fisher: Callable[[Site], Fisher] | None = None,
) -> TrainingData:
    """Return what the methods learn from.

    Args:
        session: the model and how it answers.
        best: the features selected at the layer, the best first.
        site: where the methods steer.
        rows_of: decoder rows.
        train: training rows with ``success``.
        validation: residuals of the validation prompts.
        seed: of folds and draws.
        fisher: estimates what vectors cost at a site; only programs with ``fisher`` need it.
    """
    chosen: Int[np.ndarray, " m"] = best["feature"].to_numpy()
    some = train[:PAIR_ROWS]

    def pairs(texts: tuple[list[str], list[str]]) -> Pairs:
        first, second = fitting(session, *texts, site)
        return session.residuals(first, site), session.residuals(second, site)

    def personas() -> Pairs:
        tokenizer, chat_template = session.lm.tokenizer, session.how.chat_template
        return pairs(
            persona_pairs(session.task, some["prompt"], tokenizer, chat_template=chat_template)
        )

    return TrainingData(
        site=site,
        residuals=session.residuals(train["prompt"].tolist(), site),
        success=train["success"].to_numpy(dtype=bool),
        dictionary=rows_of(int(best["layer"].iloc[0]), chosen).astype(np.float64),
        correlation=best["correlation"].to_numpy(dtype=np.float64),
        contrast=lambda: pairs(answer_pairs(session.task, some, seed)),
        personas=personas,
        shared_by=validation,
        seed=seed,
        device=session.lm.device,
        gradient=lambda: gradient_of_answers(session, some, site, seed),
        fisher=_no_fisher if fisher is None else lambda: fisher(site),
    )


# --------------------------------------------------------------------- gradients on training rows
def gradient_of_answers(
    session: Session, rows: pd.DataFrame, site: Site, seed: int
) -> Float[np.ndarray, " d_model"]:
    """Return the likelihood gradient of right against wrong answers at the end of the prompts.

    Answers follow the prompts as in fine-tuning. See
    :func:`steering_core.generation.score_gradients.answer_gradient`.

    Raises:
        DataError: if no row has a wrong answer, or fewer than two fit the model's context.
    """
    wrongs = wrong_answers(session.task, rows, seed)
    kept = rows[[other is not None for other in wrongs]]
    if kept.empty:
        raise DataError("there is no wrong answer to make a pair with")
    tokenizer, prompts = session.lm.tokenizer, kept["prompt"].tolist()

    def tokens_of(answers: Sequence[str]) -> list[list[int]]:
        after = [joined(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]
        return tokenize(tokenizer, after, prepend_bos=False)

    found = answer_gradient(
        session.lm,
        tokenize(
            tokenizer,
            prompts,
            prepend_bos=site.prepend_bos,
            control_tokens=session.how.chat_template,
        ),
        tokens_of(kept["worked"].tolist()),
        tokens_of([other for other in wrongs if other is not None]),
        site,
        batch_tokens=BATCH_TOKENS,
    )
    return found.vector


def fisher_of_answers(
    session: Session, train: pd.DataFrame, site: Site, settings: "FisherSettings", seed: int
) -> Fisher:
    """Return the Fisher information of what is added while the model answers training prompts.

    The prompts are answered greedily, as the task is, with no more tokens than an answer has.
    Predictions are of the whole vocabulary, also with ``restrict_options``.

    Args:
        session: the model and how it answers.
        train: training rows.
        site: where vectors are added.
        settings: ``texts``, ``tokens``, ``samples`` and ``shrinkage`` of the estimate.
        seed: of the draw of prompts and predictions.

    Raises:
        DataError, ModelError: as :func:`steering_core.generation.score_gradients.estimate_fisher`
            and :meth:`steering_core.statistics.fisher.FisherSums.fisher`.
    """
    how = session.how
    chosen = np.random.default_rng([seed, 11]).permutation(len(train))[: settings.texts]
    rows = train.iloc[np.sort(chosen)]
    sums = estimate_fisher(
        session.lm,
        rows["example_id"].tolist(),
        tokenize(
            session.lm.tokenizer,
            rows["prompt"].tolist(),
            prepend_bos=site.prepend_bos,
            control_tokens=how.chat_template,
        ),
        site,
        Sampling(min(settings.tokens, how.new_tokens), temperature=None, seed=seed),
        samples=settings.samples,
        positions="last",
        batch_rows=how.batch_rows,
        batch_tokens=BATCH_TOKENS,
    )
    return sums.fisher(settings.shrinkage)


# -------------------------------------------------------------------------------- pairs of prompts
def fitting(
    session: Session, first: list[str], second: list[str], site: Site
) -> tuple[list[str], list[str]]:
    """Return the pairs of texts that both fit the model's context.

    Raises:
        DataError: if no pair does.
    """
    if not first:
        return first, second
    longest = np.max(
        [
            count_tokens(
                session.lm.tokenizer,
                side,
                site.prepend_bos,
                control_tokens=session.how.chat_template,
            )
            for side in (first, second)
        ],
        axis=0,
    )
    kept = np.flatnonzero(longest <= session.lm.shape.context)
    if not len(kept):
        raise DataError("no pair of texts fits the model's context")
    return [first[i] for i in kept], [second[i] for i in kept]


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
